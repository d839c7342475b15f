/** The values of options: sizes, intervals, addresses. One parser each, for every command. */
import { UserError } from "../core/errors.ts";

const sizeUnits: Readonly<Record<string, number>> = {
  "": 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/** 4096, 512M, 1.5G, 10GiB: bytes, in powers of 1024. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const bytes = Math.floor(Number(match?.[1]) * (sizeUnits[match?.[2]?.toUpperCase() ?? ""] ?? Number.NaN));
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new UserError(
      "usage",
      `not a size: ${JSON.stringify(text)}`,
      "a number with K, M, G or T, such as 512M or 10G",
    );
  }
  return bytes;
}

const intervalUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const INTERVAL_MS_MAX = 24 * 3_600_000;

/** 500ms, 1s, 10m, 1h: milliseconds; a bare number is of seconds. */
export function parseInterval(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/.exec(text.trim());
  const ms = Number(match?.[1]) * (intervalUnits[match?.[2] ?? "s"] ?? Number.NaN);
  if (!(ms >= 1 && ms <= INTERVAL_MS_MAX)) {
    throw new UserError(
      "usage",
      `not an interval: ${JSON.stringify(text)}`,
      "a number with ms, s, m or h, such as 500ms or 10s",
    );
  }
  return ms;
}

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** HOST:PORT, [IPV6]:PORT. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-f:.%a-z]+)\]|([^:\[\]]+)):(\d+)$/i.exec(text.trim());
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port >= 0 && port <= 65535)) {
    throw new UserError(
      "usage",
      `not an address: ${JSON.stringify(text)}`,
      "HOST:PORT, such as 10.0.0.2:7400 or [::1]:7400",
    );
  }
  return { host, port };
}

/** 1536 -> "1.5 KiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ""}`;
}
