/** How requests come in. The rest of the program knows these names and no more of it: see mount.ts. */
export const transports = ["kernel", "fuse-native"] as const;
export type Transport = (typeof transports)[number];
