import assert from "node:assert/strict";
import { test } from "node:test";
import { prng } from "../../src/core/prng.ts";
import type { Handle, NodeId } from "../../src/fs/file-system.ts";
import { makeWriters } from "../../src/fuse/kernel/connection.ts";

test("writers are those that were added and not removed, whatever a number of a handle was before", () => {
  const random = prng(1);
  const writers = makeWriters();
  const known = new Map<Handle, { readonly node: NodeId; readonly isCached: boolean }>();
  const numbers = Array.from({ length: 9 }, (_, i) => i as Handle);
  const nodes = [5, 6, 2 ** 32 + 5] as NodeId[];
  for (let step = 0; step < 3000; step++) {
    const handle = (random.u32() % 8) as Handle;
    if (known.delete(handle) || random.u32() % 4 === 0) writers.remove(handle);
    else {
      const one = { node: nodes[random.u32() % 3] as NodeId, isCached: random.u32() % 2 === 0 };
      writers.add(handle, one.node, one);
      known.set(handle, one);
    }
    const all = [...known.values()];
    assert.equal(writers.cachedCount, all.filter(({ isCached }) => isCached).length);
    assert.deepEqual(new Set(writers.nodes()), new Set(all.map(({ node }) => node)));
    for (const node of nodes) {
      const same = all.filter((one) => one.node === node);
      assert.equal(writers.has(node), same.length > 0);
      for (const at of numbers) {
        const isBeside = known.get(at)?.isCached === false && same.length >= 2 && same.some(({ isCached }) => isCached);
        assert.equal(writers.isBesideCached(at, node), isBeside, `handle ${at} of node ${node} in step ${step}`);
        assert.equal(writers.isCached(at), known.get(at)?.isCached === true);
      }
    }
  }
});
