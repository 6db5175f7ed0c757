/** What `ditrun doctor` looks at, in the order of its page. */
export const sections = {
  install: "Node.js and this install",
  gpus: "Driver and GPUs",
  kernels: "Kernel modules and libraries",
  links: "Links between workers",
  limits: "Memory and limits",
  network: "Network and ports",
  cpu: "CPU and NUMA",
  files: "Files and programs",
} as const;
export type Section = keyof typeof sections;

/** Every check, in that order. They stand here alone so that the command line knows them without loading any. */
export const checkNames = [
  ...(["node", "ditrun", "koffi", "zeromq"] as const),
  ...(["driver", "visible-gpus", "capability", "health", "gpu-rates"] as const),
  ...(["cpu-module", "cuda-module", "cublaslt", "nccl"] as const),
  ...(["gpu-peers", "cpu-peers", "bandwidth"] as const),
  ...(["memory", "shm", "memlock", "open-files", "processes", "container"] as const),
  ...(["loopback", "port", "interface", "ipv6", "hosts"] as const),
  ...(["cores", "cpu-limit", "numa", "cpu-rates"] as const),
  ...(["hub-cache", "disk", "tmp", "ffmpeg", "hub-token"] as const),
] as const;
export type CheckName = (typeof checkNames)[number];
