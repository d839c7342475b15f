/** What a volume has twice: fsinfo and the snapshot table. Either copy serves alone, and the other is put right from it. */
import assert from "node:assert/strict";
import { BLOCK_BYTES } from "../../src/core/block.ts";
import { manualClock } from "../../src/core/clock.ts";
import { CorruptionError, UserError } from "../../src/core/errors.ts";
import { prng } from "../../src/core/prng.ts";
import { blockPointer } from "../../src/format/block-pointer.ts";
import { fsinfoVbns } from "../../src/format/constants.ts";
import { fsinfoRecord } from "../../src/format/fsinfo.ts";
import { fileRoot } from "../../src/format/inode.ts";
import { snapshotRecord } from "../../src/format/snapshot-record.ts";
import { checkVolume } from "../../src/volume/check.ts";
import { openVolume } from "../../src/volume/open.ts";
import { repairCopies } from "../../src/volume/repair.ts";
import { openSnapshotTable } from "../../src/volume/snapshot-table.ts";
import type { Volume } from "../../src/volume/volume.ts";
import type { MemoryDevice } from "../support/devices.ts";
import { blockOf, fieldsOf, type Harm, harmed, type Kind, type Place, wholeBlocks } from "./kinds.ts";
import { lostOf, sample } from "./sample-volume.ts";

function fsinfoFields(volume: Volume): readonly Place[] {
  const { inodeFile, snapshotTable } = fsinfoRecord.offset;
  return fsinfoVbns(volume.committed.reservedBlocks).flatMap((vbn) => {
    const at = vbn * BLOCK_BYTES;
    return fieldsOf(fsinfoRecord, at).concat(
      fieldsOf(fileRoot, at + inodeFile),
      fieldsOf(fileRoot, at + snapshotTable),
    );
  });
}

/** Both copies of the blocks of records, or of the indirect block above them. */
function tablePlaces({ device, committed }: Volume, what: "records" | "indirect"): readonly Place[] {
  const { pointers, height } = committed.snapshotTable;
  assert.equal(height, 1);
  const top = blockPointer.get.vbn(new DataView(pointers.slice().buffer), 0);
  const vbns = openSnapshotTable(device, committed)
    .copies()
    .filter(({ vbn, otherVbn }) => (vbn === top || otherVbn === top) === (what === "indirect"))
    .map(({ vbn }) => vbn);
  const record = what === "indirect" ? blockPointer : snapshotRecord;
  return [...wholeBlocks(vbns), ...vbns.flatMap((vbn) => fieldsOf(record, vbn * BLOCK_BYTES))];
}

export const doubleKinds: readonly Kind[] = [
  {
    what: "a copy of fsinfo",
    promise: "are noted, the other copy serves, and it is put right",
    device: () => sample().device,
    places: () => fsinfoFields(sample().volume),
    judge(harm): void {
      const vbn = blockOf(harm);
      const damaged = harmed(sample().device, harm);
      const { notes, findings } = checkVolume(damaged);
      assert.deepEqual(findings, [], "a power cut may leave it so");
      assert(
        notes.some((note) => note.includes(`block ${vbn},`)),
        notes.join(),
      );
      judgeHealing(damaged, { what: "fsinfo", vbn });
    },
  },
  {
    what: "both copies of fsinfo",
    promise: "are named, and nothing is opened",
    device: () => sample().device,
    places: () => fsinfoFields(sample().volume),
    judge(harm): void {
      let damaged = sample().device;
      for (const vbn of fsinfoVbns(sample().volume.committed.reservedBlocks))
        damaged = harmed(damaged, inBlock(vbn, harm));
      for (const writable of [true, false])
        assert.throws(
          () => openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable }),
          isCorrupt,
        );
      assert.throws(() => checkVolume(damaged), isCorrupt);
      assert.throws(() => repairCopies(damaged), isCorrupt);
    },
  },
  ...tableKinds("records"),
  ...tableKinds("indirect"),
];

function tableKinds(what: "records" | "indirect"): readonly Kind[] {
  const name = what === "records" ? "a block of the snapshot table" : "the indirect block of the snapshot table";
  return [
    {
      what: `a copy of ${name}`,
      promise: "are found and named, the other copy serves, and it is put right",
      device: () => sample().device,
      places: () => tablePlaces(sample().volume, what),
      judge(harm): void {
        const vbn = blockOf(harm);
        const damaged = harmed(sample().device, harm);
        const { findings } = checkVolume(damaged);
        assert.deepEqual(
          findings.map((finding) => [finding.kind, finding.vbn]),
          [["snapshot-table", vbn]],
        );
        judgeHealing(damaged, { what: "snapshot-table", vbn });
      },
    },
    {
      what: `both copies of ${name}`,
      promise: "are found, and no snapshot is guessed",
      device: () => sample().device,
      places: () => tablePlaces(sample().volume, what),
      judge(harm): void {
        const { device, committed } = sample().volume;
        const { otherVbn } =
          openSnapshotTable(device, committed)
            .copies()
            .find(({ vbn }) => vbn === blockOf(harm)) ?? assert.fail("no other copy");
        const damaged = harmed(harmed(sample().device, harm), inBlock(otherVbn, harm));
        for (const writable of [true, false])
          assert.throws(
            () => openVolume({ device: damaged, clock: manualClock(), random: prng(1), writable }),
            CorruptionError,
          );
        assert.throws(() => repairCopies(damaged), CorruptionError);
        assert(
          checkVolume(damaged).findings.some(
            ({ kind, message }) => kind === "snapshot-table" && message.includes("cannot be read"),
          ),
        );
      },
    },
  ];
}

/** The same harm in another block. */
function inBlock(vbn: number, harm: Harm): Harm {
  return { ...harm, at: vbn * BLOCK_BYTES + (harm.at % BLOCK_BYTES) };
}

function isCorrupt(error: unknown): boolean {
  return error instanceof UserError && error.failure === "corrupt";
}

/** All is read from the other copy; afterwards the bad one is good again. */
function judgeHealing(damaged: MemoryDevice, bad: { readonly what: string; readonly vbn: number }): void {
  const { device, contents } = sample();
  assert.deepEqual(lostOf(damaged, contents, `block ${bad.vbn}`), []);
  assert.deepEqual(
    repairCopies(damaged).map(({ what, vbn }) => ({ what, vbn })),
    [bad],
  );
  assert.deepEqual(damaged.peek(bad.vbn), device.peek(bad.vbn));
  const { notes, findings } = checkVolume(damaged);
  assert.deepEqual([...notes, ...findings], []);
}
