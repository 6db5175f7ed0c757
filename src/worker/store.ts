import type { Job } from "../protocol/job.js";

export interface Store {
  readonly rank: number;
  readonly size: number;
  readonly job: Job;
  put(key: string, value: Uint8Array): Promise<void>;
  get(key: string): Promise<Uint8Array>;
  barrier(name: string): Promise<void>;
  close(): void;
}
