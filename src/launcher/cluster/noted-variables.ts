/** Variables that change what a launch does, for its log. */
const noted =
  /^(?:DITRUN_|CUDA_|NVIDIA_|NCCL_|HF_|OMP_|UCX_|SLURM_(?:JOB_ID|NTASKS|NODELIST|PROCID)$)|^(?:MASTER_(?:ADDR|PORT)|RANK|WORLD_SIZE|NODE_OPTIONS|FFMPEG|LD_LIBRARY_PATH|LD_PRELOAD|TMPDIR)$/;
const secret = /TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL/i;

/** The environment's variables that matter to a launch, by name; of a secret, only that it is set. */
export function notedVariables(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  const found = Object.entries(environment).flatMap(([name, value]) => {
    if (value === undefined || !noted.test(name)) return [];
    return [[name, secret.test(name) ? "(set, not shown)" : value] as const];
  });
  return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}
