/** What a video should be: the fields of `POST /v1/videos`, by the server's names. Those left out are as the server has them. */
export interface CreateVideo {
  readonly prompt: string;
  readonly negative_prompt?: string | undefined;
  /** The server's model; it may be left out. */
  readonly model?: string | undefined;
  /** `832x480`, one of the server's. */
  readonly size?: string | undefined;
  /** 4n + 1. */
  readonly num_frames?: number | undefined;
  /** Length as text, in place of `num_frames`. */
  readonly seconds?: string | undefined;
  readonly fps?: number | undefined;
  readonly num_inference_steps?: number | undefined;
  readonly guidance_scale?: number | undefined;
  /** The same for low noise, where a model has two transformers. */
  readonly guidance_scale_2?: number | undefined;
  readonly flow_shift?: number | undefined;
  /** 0 to 2^64 - 1, as text where a number cannot hold it; drawn where it is left out. */
  readonly seed?: number | string | undefined;
  /** Names in the server's folder of LoRAs. */
  readonly lora?: string | readonly { readonly name: string; readonly scale?: number }[] | undefined;
  /** The same for low noise, where a model has two transformers. */
  readonly lora_2?: string | readonly { readonly name: string; readonly scale?: number }[] | undefined;
  /** The video fails unless it is done so soon, the queue included. */
  readonly deadline_seconds?: number | undefined;
  /** The same from its start. */
  readonly run_deadline_seconds?: number | undefined;
}

/** A video as the server tells of it; times are Unix seconds. A server that is newer may tell more. */
export interface Video {
  readonly id: string;
  readonly object: "video";
  readonly model: string;
  readonly status: "queued" | "in_progress" | "completed" | "failed";
  /** 0 to 100. */
  readonly progress: number;
  readonly created_at: number;
  readonly completed_at: number | null;
  /** When the server forgets it. */
  readonly expires_at: number | null;
  readonly prompt: string;
  readonly negative_prompt: string | null;
  readonly size: string;
  readonly seconds: string;
  readonly num_frames: number;
  readonly fps: number;
  readonly num_inference_steps: number | null;
  readonly guidance_scale: number | null;
  readonly guidance_scale_2: number | null;
  readonly flow_shift: number | null;
  readonly seed: number | string;
  /** Why it has failed; the code of a cancelled one is `cancelled`. */
  readonly error: { readonly code: string; readonly message: string } | null;
  /** 1 is next. */
  readonly queue_position: number | null;
  readonly inference_time_s: number | null;
  readonly peak_memory_mb: number | null;
  readonly stage_durations: Readonly<Record<string, number>> | null;
}

/** How far a video is. */
export interface VideoProgress {
  readonly stage: "prepare" | "encode" | "sample" | "decode";
  readonly step: number;
  readonly steps: number;
  /** 0 to 100. */
  readonly progress: number;
  /** Seconds until all steps are done; null while it is not known. */
  readonly eta_s: number | null;
}

export type VideoEvent =
  | { readonly kind: "status"; readonly video: Video }
  | { readonly kind: "progress"; readonly progress: VideoProgress }
  /** Somebody has removed it. */
  | { readonly kind: "deleted" };

/** Of every call. */
export interface CallOptions {
  /** Ends the call, which is rejected with its reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface CreateOptions extends CallOptions {
  /** Against twins; each create has one of its own, so that its retries make one video. */
  readonly idempotencyKey?: string | undefined;
}

export interface ListOptions extends CallOptions {
  /** Videos of a page, 1 to 100; 20 by default. Pages follow by themselves. */
  readonly limit?: number | undefined;
  /** By creation; `desc` by default, the newest first. */
  readonly order?: "asc" | "desc" | undefined;
  /** The id that the list begins after. */
  readonly after?: string | undefined;
}

export interface EventOptions extends CallOptions {
  /** Milliseconds for which a server that cannot be reached is asked again; 60,000 by default. A server may be starting again. */
  readonly patienceMs?: number | undefined;
}

export interface ContentOptions extends CallOptions {
  /** Bytes of the file as a Range header says it, as `bytes=0-1023`. */
  readonly range?: string | undefined;
}

export interface GenerateOptions extends CreateOptions, EventOptions {
  readonly onEvent?: ((event: VideoEvent) => void) | undefined;
}
