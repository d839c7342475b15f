/**
 * Loading fuse-native. Its addon is linked against libfuse.so.2, which newer systems do not install; the package brings
 * one, under a name that the dynamic linker does not look for. Loaded before the addon, it is found all the same: the
 * linker goes by the name inside a library that is in memory already.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { UserError } from "../../core/errors.ts";
import type { Addon, FuseClass } from "./fuse-native.d.ts";

/** dlopen(3): stays when it is closed, as Node does with what is no addon. Node has no name for it. */
const RTLD_NODELETE = 0x1000;

export interface FuseNative {
  readonly Fuse: FuseClass;
  readonly addon: Addon;
}

/** Throws UserError that says what is missing, and how to get it. */
export function loadFuseNative(): FuseNative {
  const require = createRequire(import.meta.url);
  try {
    return loadWith(require);
  } catch (cause) {
    if (!preloadLibrary(require)) throw cannotLoad(cause);
  }
  try {
    return loadWith(require);
  } catch (cause) {
    throw cannotLoad(cause);
  }
}

/** The addon is asked for with the loader of the package itself, and so is the same one. */
function loadWith(require: NodeJS.Require): FuseNative {
  const Fuse = require("fuse-native") as FuseClass;
  const main = require.resolve("fuse-native");
  const load = createRequire(main)("node-gyp-build") as (directory: string) => Addon;
  return { Fuse, addon: load(dirname(main)) };
}

/** False: there is none for this machine. */
function preloadLibrary(require: NodeJS.Require): boolean {
  let library: string;
  try {
    const folder = dirname(require.resolve("fuse-native"));
    library = join(folder, "prebuilds", `${process.platform}-${process.arch}`, "libfuse.so");
  } catch {
    return false;
  }
  if (!existsSync(library)) return false;
  try {
    const { RTLD_NOW, RTLD_GLOBAL } = constants.dlopen;
    process.dlopen({ exports: {} }, library, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  } catch {
    // It is no addon, and Node says so; it is in memory, or the next step says why not.
  }
  return true;
}

function cannotLoad(cause: unknown): UserError {
  const [why = ""] = (cause instanceof Error ? cause.message : String(cause)).split("\n");
  const hint = why.includes("libfuse")
    ? "install the library: apt-get install libfuse2 (libfuse2t64, fuse-libs on other systems)"
    : "install the npm package fuse-native for this machine: npm rebuild fuse-native";
  return new UserError("failed", `the transport fuse-native cannot be loaded: ${why}`, hint, { cause });
}
