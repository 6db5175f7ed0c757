export interface VideoFormat {
  /** Pixels, both even. */
  readonly width: number;
  readonly height: number;
  /** Frames per second. */
  readonly fps: number;
  /** How many will come, where that is known. */
  readonly frames?: number;
}

/** What a file tells of how it was made: in an MP4 as ffmpeg's `title` and `comment`, in a PNG as text chunks. */
export interface VideoMetadata {
  /** One line, for players. */
  readonly title: string;
  /** One JSON object. */
  readonly comment: string;
  /** The program and its version. */
  readonly software: string;
}

/** Where a video goes, and who hears what becomes of it. */
export interface VideoTarget {
  /** FILE.mp4 or FOLDER/. Where something has that name the next free number is taken. */
  readonly out: string;
  /** What has the name is replaced instead, once the new video is whole. */
  readonly overwrite: boolean;
  /** Left out where the file should tell nothing. */
  readonly metadata?: VideoMetadata | undefined;
  /** Says a sentence that the user should know. */
  warn(sentence: string): void;
}

/** Takes a video frame by frame. Nothing stands at the target's name before `finish` (PNG frames excepted). */
export interface VideoWriter {
  /** What encodes, for the user to see: `ffmpeg (libx264)`, `WebAssembly H.264`, `PNG`. */
  readonly encoder: string;
  /** Takes one frame: RGB, 8 bits each, [height, width, 3]. Resolves when the next may come. */
  write(frame: Uint8Array): Promise<void>;
  /** Completes the file. @returns its name, or that of the folder of frames. */
  finish(): Promise<string>;
  /** Gives up: stops the encoder and removes what is unfinished. */
  abort(): Promise<void>;
}
