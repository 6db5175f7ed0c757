export interface VideoFormat {
  /** Pixels, both even. */
  readonly width: number;
  readonly height: number;
  /** Frames per second. */
  readonly fps: number;
}

/** Takes a video frame by frame. Nothing stands at the target's name before `finish` (PNG frames excepted). */
export interface VideoWriter {
  /** What encodes, for the user to see: `ffmpeg (libx264)`, `WebAssembly H.264`, `PNG`. */
  readonly encoder: string;
  /** Takes one frame: RGB, 8 bits each, [height, width, 3]. Resolves when the next may come. */
  write(frame: Uint8Array): Promise<void>;
  /** Completes the file. */
  finish(): Promise<void>;
  /** Gives up: stops the encoder and removes what is unfinished. */
  abort(): Promise<void>;
}
