// How things are, in a few words.

import { duration, number } from "./format.js";

/** Without a tick for so long, a topic is quiet; without a forecast for a tick, something may be wrong. */
const QUIET_MS = 10_000;
const LATE_MS = 3_000;

/**
 * @param connection "connecting", "open" or "lost"
 * @param board the last one heard, null before the first
 * @returns {tone, words}
 */
export function describe(connection, board, paused) {
  if (paused) return { tone: "calm", words: "Paused" };
  if (connection === "lost") return { tone: "bad", words: "Connection to the page's server lost, trying again" };
  if (!board) return { tone: "calm", words: "Connecting" };
  if (board.trouble) return { tone: "bad", words: `Kafka cannot be read: ${board.trouble}` };
  const { ticks, forecasts } = board.newest_ms;
  if (ticks === null && forecasts === null) return { tone: "calm", words: "Waiting for ticks" };
  const since = board.waiting_since_ms;
  if (since !== null && board.now_ms - since > LATE_MS) return { tone: "warn", words: lateWords(board) };
  const quietMs = board.now_ms - Math.max(ticks ?? 0, forecasts ?? 0);
  if (quietMs > QUIET_MS) return { tone: "calm", words: `No ticks for ${duration(quietMs)}` };
  if (board.unreadable_count) {
    const words = `Live, but ${number(board.unreadable_count)} records of ${board.topics.forecasts} are no forecasts`;
    return { tone: "warn", words };
  }
  return { tone: "good", words: "Live" };
}

function lateWords({ now_ms: now, newest_ms: { forecasts }, waiting_count: count }) {
  if (forecasts === null) return "Ticks, but no forecasts: does `tickcast run` run?";
  return `No forecast for ${duration(now - forecasts)}: ${number(count)} ticks wait, or are dead letters`;
}
