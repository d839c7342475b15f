/** The values of options: sizes and intervals. One parser each, for every command; and how people are told of them. */
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

/** 1 -> "1 block", 2 -> "2 blocks". */
export function formatCount(count: number, one: string, several = `${one}s`): string {
  return `${count} ${count === 1 ? one : several}`;
}

/** 90_000 -> "1 min". */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
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
