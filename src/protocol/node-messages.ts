import { z } from "zod";
import { failureCodeSchema } from "./failure-code.js";

/**
 * What the launchers of several hosts say to each other over ZeroMQ: one JSON frame each. Node 0 leads; the others, its followers,
 * start and end the ranks of their host as it says. Every text has a limit, so that no message fills anybody's memory.
 */
/** Characters of the longest message of a failure. */
export const mostSentence = 16_384;
const name = z.string().max(255);
const sentence = z.string().max(mostSentence);
const line = z.string().max(4096);
const rank = z.int().min(0).max(65_535);
const count = z.int().min(1).max(65_536);
const launch = z.int().min(0);
const exitCode = z.int().min(1).max(255);

/** What ranks may be sent: what ended the launcher, what Python answers with its stack, and SIGKILL. */
export const rankSignals = [
  "SIGTERM",
  "SIGINT",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGABRT",
  "SIGKILL",
] as const;
export type RankSignal = (typeof rankSignals)[number];

/** How a rank's process ended. */
const exit = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("code"), code: z.int().min(0).max(255) }),
  z.strictObject({ kind: z.literal("signal"), signal: z.string().regex(/^SIG[A-Z0-9]{1,12}$/) }),
  z.strictObject({ kind: z.literal("not started"), reason: sentence }),
]);

export const followerMessageSchema = z.discriminatedUnion("type", [
  /** The first message; answered with `registered` or `refused`. */
  z.strictObject({
    type: z.literal("register"),
    /** Of ditrun: launchers of two versions do not mix. */
    version: name,
    /** Left out where the leader is to give it. */
    node: rank.optional(),
    nodes: count,
    /** Names the job and its attempt; empty where nothing does. */
    job: name,
    /** Of what the job is: launchers that were given different commands do not mix. */
    command: name,
    host: name,
    pid: z.int().min(1),
    /** The leader's address, as this launcher reaches it. */
    reached: name,
    /** Workers that this host was asked for. */
    workers: count.optional(),
    /** JSON about this host, which the leader's engine reads. */
    offer: sentence,
  }),
  /** Answers an `alive`. */
  z.strictObject({ type: z.literal("alive") }),
  /** The processes of a launch's ranks on this host, in order of rank; null for one that could not be started. */
  z.strictObject({ type: z.literal("started"), launch, pids: z.array(z.int().min(1).nullable()).max(1024) }),
  /** A rank has ended `ago` milliseconds before this was sent: `exited` follows once all its output has been read. */
  z.strictObject({ type: z.literal("dying"), launch, rank, ago: z.number().min(0) }),
  /** A rank has ended `ago` milliseconds before this was sent; the last lines of its stderr. */
  z.strictObject({
    type: z.literal("exited"),
    launch,
    rank,
    exit,
    ago: z.number().min(0),
    lines: z.array(line).max(32),
    /** The exception that ended it, and where it was, where a Python program has said so. */
    reason: sentence.optional(),
    place: sentence.optional(),
  }),
  /** Nothing of the launch is left on this host, but for processes that did not end on SIGKILL. */
  z.strictObject({ type: z.literal("ended"), launch, stuck: z.array(z.int().min(1)).max(1024) }),
  /** Has heard that the job is over. */
  z.strictObject({ type: z.literal("bye") }),
  /** The whole job must end, for a reason on this host that is no rank's. */
  z.strictObject({ type: z.literal("failed"), code: failureCodeSchema, message: sentence, exitCode }),
]);
export type FollowerMessage = z.infer<typeof followerMessageSchema>;

export const leaderMessageSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("registered"), node: rank }),
  /** The follower has no place in this job; the message is a sentence. */
  z.strictObject({ type: z.literal("refused"), message: sentence }),
  /** A sign of life; answered with one. */
  z.strictObject({ type: z.literal("alive") }),
  /** Starts ranks `first` to `first + count - 1` of `size`; what they are the follower knows. */
  z.strictObject({
    type: z.literal("start"),
    launch,
    /** Names the log files. */
    id: name,
    /** In the environment of all that is started (protocol/variables.ts). */
    mark: name,
    first: rank,
    count,
    size: count,
    /** MASTER_PORT: on the leader, as this follower reaches it. */
    port: z.int().min(1).max(65_535),
    /** JSON of the launch, which the follower's engine reads. */
    detail: sentence,
  }),
  /** Signals the groups of these ranks. */
  z.strictObject({
    type: z.literal("signal"),
    launch,
    signal: z.enum(rankSignals),
    ranks: z.array(rank).max(1024),
  }),
  /** Ends what is left of the launch; answered with `ended`. */
  z.strictObject({ type: z.literal("end"), launch }),
  /** The job is over: with a result, or with the first cause, which every launcher tells. All end with this exit code. */
  z.strictObject({
    type: z.literal("over"),
    exitCode: z.int().min(0).max(255),
    failure: z
      .strictObject({
        code: failureCodeSchema,
        message: sentence,
        rank: rank.optional(),
        host: name.optional(),
        signal: name.optional(),
      })
      .optional(),
  }),
]);
export type LeaderMessage = z.infer<typeof leaderMessageSchema>;

/** How a job ended. */
export type Ending = Omit<Extract<LeaderMessage, { type: "over" }>, "type">;
/** How many milliseconds lie between two signs of life of the leader. */
export const pulseMilliseconds = 1000;
/** A launcher that was not heard of for so long is lost. */
export const silenceMilliseconds = 5000;
