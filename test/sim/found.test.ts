// Histories that the simulation has found and cut down, each of which failed before what it found was mended.

import { test } from "node:test";
import { runHistory } from "./run.ts";
import { decodeHistory } from "./steps.ts";

const found: readonly { readonly what: string; readonly history: string }[] = [
  {
    what: "a process dies at each of the two writes of fsinfo, and then the power goes: one of them is on the disk",
    history: `
      {"blockCount":4096,"isFilled":false,"cacheBytes":262144,"accessTimes":"strictatime","snapshots":0}
      {"kind":"do","op":{"kind":"mkdir","path":"/h","mode":1533,"uid":1},"at":1013}
      {"kind":"cut","after":12,"how":"kill","seed":2461102268,"again":[0,0],"at":3532}
      {"kind":"do","op":{"kind":"mkdir","path":"/quite a long name, as they come with photographs.jpeg","mode":1533,"uid":0},"at":3569}
      {"kind":"do","op":{"kind":"create","path":"/quite a long name, as they come with photographs.jpeg/a","mode":420,"uid":1},"at":3647}
      {"kind":"cp","at":3654}
      {"kind":"do","op":{"kind":"write","path":"/quite a long name, as they come with photographs.jpeg/a","offset":4096,"data":{"pattern":[70002,91,216]}},"at":3714}
      {"kind":"relieve","at":3722}
      {"kind":"fsync","path":"/h","wait":true,"at":3728}
      {"kind":"peek","seed":1916239959,"count":3,"at":3749}`,
  },
  {
    what: "a name stays when the inode map cannot be read, which removing it changes",
    history: `
      {"blockCount":4096,"isFilled":false,"cacheBytes":1048576,"accessTimes":"noatime","snapshots":0}
      {"kind":"do","op":{"kind":"mknod","path":"/b","mode":24960,"rdev":13083},"at":4938}
      {"kind":"do","op":{"kind":"rename","path":"/b","into":"/e","flags":0},"at":5006}
      {"kind":"do","op":{"kind":"create","path":"/c","mode":420,"uid":2},"at":5423}
      {"kind":"cut","after":5,"how":"power","seed":3800969009,"again":[0,0],"at":5508}
      {"kind":"fsync","path":"/c","wait":true,"at":5534}
      {"kind":"fault","on":"read","code":"EIO","after":0,"times":1,"at":5608}
      {"kind":"do","op":{"kind":"unlink","path":"/e"},"at":5633}`,
  },
  {
    what: "an inode number is not lost when the block that its inode is in cannot be read",
    history: `
      {"blockCount":400,"isFilled":false,"cacheBytes":1048576,"accessTimes":"strictatime","snapshots":0}
      {"kind":"do","op":{"kind":"symlink","path":"/g","target":"tttttttt"},"at":28}
      {"kind":"do","op":{"kind":"unlink","path":"/g"},"at":156}
      {"kind":"cp","at":302}
      {"kind":"cut","after":1,"how":"kill","seed":2803306535,"again":[1],"at":432}
      {"kind":"cp","at":551}
      {"kind":"cp","at":584}
      {"kind":"fault","on":"read","code":"ENOSPC","after":2,"times":3,"at":681}
      {"kind":"do","op":{"kind":"tmpfile","path":"/","slot":3,"excl":false},"at":1230}`,
  },
  {
    what: "an fsync after a restore waits for the consistency point that makes the restore durable",
    history: `
      {"blockCount":192,"isFilled":false,"cacheBytes":262144,"accessTimes":"relatime","snapshots":0}
      {"kind":"do","op":{"kind":"mkdir","path":"/quite a long name, as they come with photographs.jpeg","mode":493,"uid":1},"at":2241}
      {"kind":"snapshot","what":"create","name":"two","at":2695}
      {"kind":"do","op":{"kind":"mkdir","path":"/z{*255}","mode":1533,"uid":0},"at":2787}
      {"kind":"fsync","path":"/quite a long name, as they come with photographs.jpeg","wait":true,"at":2834}
      {"kind":"snapshot","what":"restore","name":"two","at":5817}
      {"kind":"fsync","path":"/quite a long name, as they come with photographs.jpeg","wait":false,"at":5858}
      {"kind":"peek","seed":1194592891,"count":1,"at":5867}`,
  },
  {
    what: "the power goes while a snapshot is received that holds what the one before holds",
    history: `
      {"blockCount":800,"isFilled":false,"cacheBytes":262144,"accessTimes":"strictatime","snapshots":0}
      {"kind":"snapshot","what":"create","name":"four","at":1338}
      {"kind":"snapshot","what":"create","name":"two","at":1363}
      {"kind":"send","name":"four","at":3237}
      {"kind":"receive","frames":4,"checkpoint":false,"at":3887}
      {"kind":"cutOther","after":1,"seed":4063591993,"at":3920}
      {"kind":"send","name":"two","at":4002}
      {"kind":"receive","frames":4,"checkpoint":false,"at":4006}`,
  },
  {
    what: "a block rots that the replay of a truncation has to read",
    history: `
      {"blockCount":4096,"isFilled":false,"cacheBytes":1048576,"accessTimes":"relatime","snapshots":0}
      {"kind":"do","op":{"kind":"create","path":"/d","mode":420,"uid":0},"at":571}
      {"kind":"do","op":{"kind":"write","path":"/d","offset":0,"data":{"pattern":[3145728,146,245]}},"at":788}
      {"kind":"do","op":{"kind":"write","path":"/d","offset":3145728,"data":{"pattern":[3145728,160,180]}},"at":834}
      {"kind":"do","op":{"kind":"create","path":"/quite a long name, as they come with photographs.jpeg","mode":420,"uid":0},"at":957}
      {"kind":"sync","wait":true,"at":1108}
      {"kind":"do","op":{"kind":"write","path":"/quite a long name, as they come with photographs.jpeg","offset":0,"data":{"pattern":[300000,103,21]}},"at":1248}
      {"kind":"log","at":1648}
      {"kind":"do","op":{"kind":"unlink","path":"/quite a long name, as they come with photographs.jpeg"},"at":1660}
      {"kind":"fsync","path":"/d","wait":true,"at":1673}
      {"kind":"do","op":{"kind":"create","path":"/z{*255}","mode":420,"uid":2},"at":1716}
      {"kind":"fsync","path":"/d","wait":false,"at":1724}
      {"kind":"log","at":1787}
      {"kind":"crash","how":"kill","seed":1521418905,"again":[],"at":1798}
      {"kind":"crash","how":"power","seed":4123788013,"again":[5,0],"at":2569}
      {"kind":"do","op":{"kind":"unlink","path":"/d"},"at":2752}
      {"kind":"fsync","path":"/","wait":true,"at":2799}
      {"kind":"do","op":{"kind":"write","path":"/z{*255}","offset":50,"data":{"pattern":[70000,102,212]}},"at":2805}
      {"kind":"do","op":{"kind":"rename","path":"/z{*255}","into":"/f","flags":0},"at":2824}
      {"kind":"do","op":{"kind":"write","path":"/f","offset":4095,"data":{"pattern":[65537,158,65]}},"at":2906}
      {"kind":"cp","at":2928}
      {"kind":"send","name":"snapshot 17","at":2943}
      {"kind":"do","op":{"kind":"truncate","path":"/f","sizeBytes":127},"at":3185}
      {"kind":"fsync","path":"/f","wait":false,"at":3266}
      {"kind":"log","at":3310}
      {"kind":"do","op":{"kind":"mkdir","path":"/h","mode":1533,"uid":1},"at":3340}
      {"kind":"sync","wait":false,"at":3438}
      {"kind":"log","at":3493}
      {"kind":"rot","seed":113403479,"at":3531}`,
  },
  {
    what: "the replay of a cut needs the number of what was cut out of the same file before, and is yet to be freed",
    history: `
      {"blockCount":256,"isFilled":false,"cacheBytes":1048576,"accessTimes":"noatime","snapshots":0}
      {"kind":"do","op":{"kind":"create","path":"/d","mode":420,"uid":0},"at":3014}
      {"kind":"do","op":{"kind":"mkdir","path":"/b","mode":1533,"uid":1},"at":3520}
      {"kind":"do","op":{"kind":"mknod","path":"/c","mode":24960,"rdev":68610},"at":4789}
      {"kind":"cp","at":4945}
      {"kind":"cp","at":4975}
      {"kind":"do","op":{"kind":"write","path":"/d","offset":38332868,"data":{"pattern":[100,161,7]}},"at":5275}
      {"kind":"do","op":{"kind":"fallocate","path":"/d","mode":3,"offset":2301,"length":34681360},"at":5277}
      {"kind":"cp","at":5298}
      {"kind":"watch","count":30,"seed":1223805271,"at":5309}
      {"kind":"cp","at":5472}
      {"kind":"reclaim","at":5481}
      {"kind":"cp","at":5511}
      {"kind":"do","op":{"kind":"unlink","path":"/c"},"at":5641}
      {"kind":"do","op":{"kind":"mknod","path":"/b/g","mode":8576,"rdev":8951},"at":5738}
      {"kind":"do","op":{"kind":"truncate","path":"/d","sizeBytes":0},"at":5747}
      {"kind":"log","at":5754}
      {"kind":"log","at":5755}`,
  },
  {
    what: "a frame that is written after a consistency point with all its changes refers to nothing any more",
    history: `
      {"blockCount":1024,"isFilled":false,"cacheBytes":1048576,"accessTimes":"noatime","snapshots":0}
      {"kind":"do","op":{"kind":"mkdir","path":"/d","mode":1533,"uid":0},"at":536}
      {"kind":"do","op":{"kind":"mkdir","path":"/d/z{*255}","mode":1533,"uid":2},"at":1346}
      {"kind":"do","op":{"kind":"tmpfile","path":"/","slot":3,"excl":false},"at":5493}
      {"kind":"do","op":{"kind":"linkSlot","slot":3,"into":"/b"},"at":5494}
      {"kind":"fsync","path":"/","wait":true,"at":5507}
      {"kind":"do","op":{"kind":"mkdir","path":"/d/z{*255}/z{*255}","mode":1533,"uid":0},"at":5611}
      {"kind":"do","op":{"kind":"create","path":"/d/z{*255}/z{*255}/f","mode":420,"uid":1},"at":5615}
      {"kind":"do","op":{"kind":"write","path":"/d/z{*255}/z{*255}/f","offset":0,"data":{"pattern":[3145728,244,26]}},"at":5635}
      {"kind":"sync","wait":false,"at":5661}
      {"kind":"do","op":{"kind":"truncate","path":"/d/z{*255}/z{*255}/f","sizeBytes":4095},"at":5683}
      {"kind":"cp","at":5859}
      {"kind":"cp","at":5865}
      {"kind":"cp","at":5876}
      {"kind":"fsync","path":"/d/z{*255}/z{*255}","wait":true,"at":5943}
      {"kind":"do","op":{"kind":"link","path":"/b","into":"/d/z{*255}/h"},"at":5981}
      {"kind":"do","op":{"kind":"write","path":"/d/z{*255}/h","offset":0,"data":{"pattern":[3145728,252,176]}},"at":6075}`,
  },
  {
    what: "a restore that cannot read the snapshot's map changes nothing",
    history: `
      {"blockCount":1024,"isFilled":false,"cacheBytes":1048576,"accessTimes":"relatime","snapshots":0}
      {"kind":"snapshot","what":"create","name":"snapshot 10","at":542}
      {"kind":"snapshot","what":"rename","name":"snapshot 10","into":"snapshot 19","at":690}
      {"kind":"do","op":{"kind":"mkdir","path":"/h","mode":493,"uid":0},"at":814}
      {"kind":"fault","inLog":false,"on":"read","code":"ENOSPC","after":0,"times":3,"at":2117}
      {"kind":"snapshot","what":"restore","name":"snapshot 19","at":2170}`,
  },
  {
    what: "what has been deleted in a state that was restored is not looked for in the one before, when the disk refused to say",
    history: `
      {"blockCount":1024,"isFilled":false,"cacheBytes":1048576,"accessTimes":"relatime","snapshots":0}
      {"kind":"snapshot","what":"create","name":"snapshot 10","at":542}
      {"kind":"snapshot","what":"rename","name":"snapshot 10","into":"snapshot 19","at":690}
      {"kind":"snapshot","what":"restore","name":"snapshot 19","at":753}
      {"kind":"do","op":{"kind":"mkdir","path":"/h","mode":493,"uid":0},"at":814}
      {"kind":"snapshot","what":"create","name":"snapshot 6","at":2104}
      {"kind":"fault","inLog":false,"on":"read","code":"ENOSPC","after":0,"times":3,"at":2117}
      {"kind":"snapshot","what":"restore","name":"snapshot 19","at":2170}
      {"kind":"do","op":{"kind":"setxattr","path":"/a","name":"user.a","value":"","flags":0},"at":2196}
      {"kind":"do","op":{"kind":"tmpfile","path":"/","slot":4,"excl":false},"at":2276}`,
  },
  {
    what: "what was to be written when the disk refused is shown as it is, and not what its memory was used for next",
    history: `
      {"blockCount":1024,"isFilled":false,"cacheBytes":262144,"accessTimes":"noatime","snapshots":0}
      {"kind":"do","op":{"kind":"mkdir","path":"/e","mode":493,"uid":0},"at":365}
      {"kind":"do","op":{"kind":"setxattr","path":"/e","name":"user.a","value":"v{*10027}","flags":1},"at":380}
      {"kind":"do","op":{"kind":"mkdir","path":"/e/e","mode":493,"uid":0},"at":770}
      {"kind":"do","op":{"kind":"create","path":"/e/g","mode":420,"uid":1},"at":823}
      {"kind":"do","op":{"kind":"rename","path":"/e/e","into":"/e/a","flags":1},"at":1708}
      {"kind":"do","op":{"kind":"create","path":"/e/a/g","mode":420,"uid":1},"at":1805}
      {"kind":"sync","wait":true,"at":2219}
      {"kind":"cut","after":6,"how":"kill","seed":2706128833,"again":[],"at":2339}
      {"kind":"snapshot","what":"create","name":"one","at":2370}
      {"kind":"do","op":{"kind":"write","path":"/e/a/g","offset":0,"data":{"pattern":[4097,100,190]}},"at":3072}
      {"kind":"fsync","path":"/e/g","wait":true,"at":3140}
      {"kind":"reopen","apart":true,"at":3193}
      {"kind":"snapshot","what":"delete","name":"one","at":3837}
      {"kind":"do","op":{"kind":"write","path":"/e/a/g","offset":0,"data":{"pattern":[102,191,119]}},"at":4061}
      {"kind":"cp","at":4207}
      {"kind":"cp","at":4218}
      {"kind":"cp","at":4233}
      {"kind":"fault","inLog":false,"on":"write","code":"ENOSPC","after":0,"times":1,"at":4707}
      {"kind":"snapshot","what":"create","name":"one","at":4791}
      {"kind":"do","op":{"kind":"write","path":"/e/a/g","offset":4095,"data":{"pattern":[8001,207,118]}},"at":4793}
      {"kind":"fault","inLog":false,"on":"write","code":"EIO","after":1,"times":3,"at":4864}
      {"kind":"snapshot","what":"create","name":"two","at":4879}`,
  },
  {
    what: "a snapshot is sent under the name that it has on the disk, not under the one that it was given since",
    history: `
      {"blockCount":256,"isFilled":false,"cacheBytes":262144,"accessTimes":"noatime","snapshots":0}
      {"kind":"snapshot","what":"create","name":"one","at":2126}
      {"kind":"snapshot","what":"create","name":"two","at":2156}
      {"kind":"snapshot","what":"delete","name":"two","at":3216}
      {"kind":"snapshot","what":"rename","name":"one","into":"two","at":3319}
      {"kind":"send","name":"two","at":3454}
      {"kind":"receive","frames":1,"checkpoint":true,"at":3713}`,
  },
];

for (const { what, history } of found) test(what, () => void runHistory(decodeHistory(history)));
