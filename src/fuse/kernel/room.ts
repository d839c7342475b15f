/**
 * Whether what writers hand to the kernel's cache will fit: so that "no space" is an answer to write(2), and not to fsync or close,
 * when the data has long been taken.
 *
 * With the write-back cache the kernel asks nobody before it takes data. But it asks for the attributes of a file whose mode
 * it does not know any more, before each write(2) through a handle with a cache, and by way of that handle, as nothing else is
 * asked that concerns the mode alone: reading and seeking go by the size, which the kernel itself knows best. So
 *
 *     there is room      files are opened with the cache
 *     it gets short      files are opened without: each write(2) comes here at once, and hears of ENOSPC itself
 *     it is shut         handles with a cache, from before, are refused too: the kernel is made to forget the attributes of all
 *                        files that are open for writing, asks before the next write(2), and is told ENOSPC, which the writer gets
 *
 * Any answer that carries attributes makes the kernel stop asking, so the file is made to be forgotten again behind each. An
 * answer may still be on its way into the kernel when it is overtaken by that: the pages that come of it are seen, and remind it.
 *
 * How much may be in the cache meanwhile, and that space is set aside for it, is the business of who gives the room.
 */
export interface Room {
  readonly isShort: boolean;
  readonly isShut: boolean;
  /** A writer with a cache asks while it is shut. True: there is room again. */
  admits(): boolean;
  /**
   * Space is set aside for pages that may come. Who finds none is not to be told so yet: once they are all here, what is left
   * is there for everybody.
   */
  readonly isOwed: boolean;
  /** Pages of the kernel's cache have come. */
  took(): void;
  /** Takes a request, a copy, which found no space: it is asked again when nothing is owed any more. */
  defer(request: Uint8Array): void;
}

/** What an answer has told the kernel attributes of, instead of one node. */
export const TOLD_NOTHING = 0;
export const TOLD_MANY = -1;
