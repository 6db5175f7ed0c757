/**
 * Exit codes of ditrun. A failed worker's own code, or 128 + signal, passes through unchanged.
 */
export const exitCodes = {
  ok: 0,
  /** A result was wrong: accuracy above its tolerance. Of doctor: something that is needed is missing. */
  mismatch: 1,
  /** Bad options, plan, model or input file. */
  usage: 2,
  /** No GPU, no kernel module, a missing library. */
  environment: 3,
  /** Ranks missing, a deadline passed, a port taken. */
  rendezvous: 4,
  /** A worker failed in a way that has no code of its own. */
  worker: 5,
  /** A mistake in ditrun itself. */
  internal: 70,
} as const;

interface Kind {
  readonly exitCode: number;
  /** What it means, and the way out. docs/errors.md says the same. */
  readonly meaning: string;
  /** Whether it may not come again: all ranks may then be started anew. */
  readonly passing?: true;
}

const of = (exitCode: number, meaning: string): Kind => ({ exitCode, meaning });
/** Of a rank: what ended it once may not end it again. */
const passing = (exitCode: number, meaning: string): Kind => ({ exitCode, meaning, passing: true });
const { mismatch, usage, environment, rendezvous, worker, internal } = exitCodes;
/** As of SIGINT, where no signal says otherwise. */
const ended = 130;

/** Every kind of failure. A code that was once released keeps its name and meaning; new kinds are added. */
export const failureCodes = {
  // What was asked for.
  ERR_COMMAND_LINE: of(usage, "The command line has a word that is not understood. See `ditrun COMMAND --help`."),
  ERR_OPTION_VALUE: of(usage, "An option has a value that it cannot have. Give one that the message names."),
  ERR_OPTION_CONFLICT: of(usage, "Two options exclude each other, or one has no effect here. Leave one out."),
  ERR_NPROC: of(usage, "The command cannot run on this many workers. Change `--nproc`."),
  ERR_PROMPT: of(usage, "A prompt is empty, or is too long for the model. Change it."),
  ERR_VIDEO_SIZE: of(usage, "The model makes no video of this size or length. Choose the nearest that is named."),
  ERR_SAMPLING: of(usage, "No schedule has these steps or this shift. Choose others."),

  // Plans.
  ERR_PLAN_MESH: of(usage, "The mesh does not fit the number of workers or the model. Change the mesh or `--nproc`."),
  ERR_PLAN_SPLIT: of(usage, "A layer cannot be split as the plan says. Take a split that the message names."),
  ERR_PLAN_PRECISION: of(usage, "The plan's dtypes or kernels do not go together. Change one of them."),
  ERR_PLAN_TRANSPORT: of(usage, "The plan's transport is not there on these hosts or devices. Take `auto`."),
  ERR_PLAN_UNSUPPORTED: of(usage, "The plan sets something that the model does not have. Leave it out."),

  // Models and checkpoints.
  ERR_MODEL_KIND: of(usage, "The command runs models of another family. Choose the other command or model."),
  ERR_MODEL_CONFIG: of(usage, "The model's sizes contradict each other, or one is missing. Correct its file."),
  ERR_CHECKPOINT_MISSING: of(usage, "No checkpoint of the model was found. Download it, or name its folder."),
  ERR_CHECKPOINT_INCOMPLETE: of(usage, "The checkpoint lacks a file. Download it again, or complete it."),
  ERR_CHECKPOINT_AMBIGUOUS: of(usage, "The folder has several snapshots. Name one of them."),
  ERR_CHECKPOINT_UNSUPPORTED: of(usage, "The folder has another checkpoint than ditrun runs. Take a supported one."),
  ERR_CHECKPOINT_MISMATCH: of(usage, "The files are not of one model. Take all of them from one checkpoint."),
  ERR_LORA: of(usage, "A LoRA is of another kind, or for another model. Take one that the message allows."),
  ERR_CHECKPOINT_HASH: of(usage, "A file's contents are not what its hash says. Download it again."),
  ERR_LFS_POINTER: of(usage, "The file is a Git LFS pointer. Get the file itself with `git lfs pull`."),
  ERR_TOKENIZER: of(usage, "The tokenizer cannot be used. Take the published one of google/umt5-xxl."),

  // Tensors and the files that hold them.
  ERR_SAFETENSORS: of(usage, "The safetensors file is damaged, or is none. Copy or download it again."),
  ERR_GGUF: of(usage, "The GGUF file is damaged, or of a version or type that is not read. Download another."),
  ERR_NOT_WEIGHTS: of(usage, "Something else stands in the file's place, as a web page. Download the file itself."),
  ERR_SHARD_INDEX: of(usage, "The index of safetensors files is damaged, or is none. Download it again."),
  ERR_TORCH_CHECKPOINT: of(usage, "The PyTorch file is damaged, or is none. Download it or save it again."),
  ERR_PICKLE: of(usage, "The PyTorch file holds more than tensors, or is damaged. Convert it to safetensors."),
  ERR_TENSOR_MISSING: of(usage, "The file has no tensor of this name. Check that it is of this model."),
  ERR_TENSOR_UNKNOWN: of(usage, "The file has a tensor that the model does not have. Take the published file."),
  ERR_TENSOR_NAME: of(usage, "A tensor's name is too long, or has control characters. Rename it."),
  ERR_TENSOR_SHAPE: of(usage, "A tensor has another shape than is needed. Check that it is of this model and size."),
  ERR_TENSOR_DTYPE: of(usage, "A tensor has another dtype than is needed. Convert it."),
  ERR_TENSOR_SLICE: of(usage, "A slice is outside of its tensor, or is too large to read at once."),
  ERR_TENSOR_VALUE: of(usage, "An input holds a value that the model cannot take. Correct the file."),

  // Other files.
  ERR_DOCUMENT_UNKNOWN: of(usage, "No shipped plan or model has this name. Choose one that is named, or give a file."),
  ERR_YAML: of(usage, "The file is not valid YAML. Correct the line that is named."),
  ERR_JSON: of(usage, "The file is not valid JSON. Copy or download it again."),
  ERR_SCHEMA: of(usage, "A key of the file is unknown, is missing, or has a wrong value. Correct it."),
  ERR_FILE_READ: of(usage, "A file or folder cannot be read. Check its name and permissions."),
  ERR_FILE_WRITE: of(usage, "A file or folder cannot be written. Check the folder, permissions and free space."),
  ERR_FILE_CHANGED: of(
    usage,
    "A file of weights was written anew while it was in use. Run the same again, or open the model anew.",
  ),
  ERR_FILE_EXISTS: of(usage, "The output is there already. Choose another name, or add `--overwrite`."),
  ERR_FILE_SHARED: of(usage, "Two options name the same file. Give each a file of its own."),
  ERR_VIDEO_FORMAT: of(usage, "No writer makes this kind of video. Change the name, the size or the frame rate."),
  ERR_VIDEO_ENCODER: of(usage, "The video encoder failed. Install ffmpeg, or write PNG frames."),

  // The Hugging Face hub.
  ERR_HUB_ENDPOINT: of(usage, "HF_ENDPOINT is no web address. Set it to one, or unset it."),
  ERR_HUB_TOKEN: of(environment, "What should be a token of the hub is none. Correct HF_TOKEN or its file."),
  ERR_HUB_OFFLINE: of(environment, "HF_HUB_OFFLINE forbids the download. Unset it, or name a folder."),
  ERR_HUB_REFUSED: of(environment, "The hub refused. Check the name, the token and HF_ENDPOINT, or try later."),
  ERR_HUB_UNREACHABLE: of(environment, "The hub cannot be reached. Check the network, or set HF_ENDPOINT to a mirror."),
  ERR_HUB_ANSWER: of(environment, "The hub gave an answer that cannot be right. Check HF_ENDPOINT."),
  ERR_DOWNLOAD: of(environment, "A download broke off, or brought wrong bytes. Run the same command again."),
  ERR_DISK_SPACE: of(environment, "The disk has too little space. Free some, or set HF_HOME to another disk."),

  // A server of `ditrun serve`, as its clients see it.
  ERR_SERVER_UNREACHABLE: of(
    environment,
    "The server cannot be reached, or the way to it broke off. Check `--url` and the server.",
  ),
  ERR_SERVER_BUSY: of(environment, "The server cannot do this now: its queue is full, or it is ending. Try later."),
  ERR_SERVER_REFUSED: of(usage, "The server refuses the request. Change what the message names, or the key."),
  ERR_SERVER_ANSWER: of(environment, "The answer is none of ditrun's server. Check `--url`."),
  ERR_VIDEO_FAILED: of(worker, "The server could not make the video. The message says why."),

  // This machine.
  ERR_NO_DEVICE: of(environment, "No device can do the work. Choose a smaller model, or `--device cpu`."),
  ERR_DEVICE_MEMORY: of(environment, "The device has too little memory. Use more workers, a smaller video or fp8."),
  ERR_HOST_MEMORY: of(environment, "The host has too little memory. Use more GPUs or fp8."),
  ERR_KERNEL_MODULE: of(environment, "The kernel module cannot be used. Build it with `npm run build`."),
  ERR_KERNEL: of(environment, "A kernel or the driver failed. The message has the driver's own words."),
  ERR_LIMIT: of(environment, "A limit of the system is too low. Raise the one that is named."),
  ERR_FOLDER: of(environment, "There is no home or temporary folder. Set HOME or TMPDIR."),
  ERR_WORKING_FOLDER: of(usage, "The working folder has been removed. Go to one that exists."),

  // Hosts.
  ERR_ALLOCATION: of(usage, "What is said about the job's hosts is wrong or not enough. Give the options named."),
  ERR_JOB_KEY: of(usage, "The hosts' common key is missing or wrong. Make one with `ditrun key`, for all of them."),
  ERR_HOST_LOST: of(rendezvous, "The launcher of another host is gone, or the way to it. Look at that host's log."),

  // Ranks, and the way between them.
  ERR_WORKER_ENVIRONMENT: of(usage, "A worker was started without ditrun's variables. Start workers with ditrun."),
  ERR_PORT_TAKEN: of(
    rendezvous,
    "The port cannot be listened on. Give another `--master-port`, or `--port` for `serve`.",
  ),
  ERR_RENDEZVOUS: of(
    rendezvous,
    "Ranks did not come in time, or fell silent. Look at their logs, or raise `--timeout`.",
  ),
  ERR_LAUNCHER_LOST: of(
    rendezvous,
    "A worker cannot reach its launcher. Check MASTER_ADDR, MASTER_PORT and the launcher.",
  ),
  ERR_PEER_LOST: of(rendezvous, "Another rank failed first, or ended. Look at the log of that rank."),
  ERR_PROTOCOL: of(rendezvous, "A message between worker and launcher is not valid. Use one build on all hosts."),
  ERR_PEER_MEMORY: of(worker, "Ranks share different peer memory. Give all of them one plan and model."),
  ERR_RANK_FAILED: passing(worker, "A rank ended with an error that has no code of its own. Look at its log."),
  ERR_RANK_SIGNAL: passing(worker, "A rank was ended by a signal. Look at its log, and at the system's for memory."),
  ERR_RANK_SILENT: passing(
    rendezvous,
    "No rank wrote a line for as long as `--timeout` allows. See where each rank waits.",
  ),
  ERR_RANK_NOT_STARTED: of(
    environment,
    "A rank's program could not be started. Check the command and its permissions.",
  ),
  ERR_RESULT: of(worker, "A rank's result or message is too large, or is no plain JSON. Please report it."),
  ERR_INTERRUPTED: of(ended, "A signal ended the job. The exit code is 128 + the signal's number."),
  ERR_CLOSED: of(internal, "The workers have been told to end. Start or open them again."),
  ERR_DEADLINE: of(ended, "The request was not done by its deadline. Give it more time, or a smaller video."),
  ERR_ABORTED: of(ended, "The caller's AbortSignal ended the work. Nothing is wrong."),

  // Results.
  ERR_NOT_FINITE: of(mismatch, "A result holds NaN or infinite values. Check the weights, or try `--dtype fp32`."),
  ERR_LINK_WRONG: of(mismatch, "A transfer between ranks brought wrong values. Check the link and its driver."),
  ERR_INTERNAL: of(internal, "A mistake in ditrun itself. Please report it with `--log-level debug`."),
} as const satisfies Record<`ERR_${string}`, Kind>;

/** The stable name of a kind of failure, such as `ERR_PLAN_MESH`. */
export type FailureCode = keyof typeof failureCodes;
