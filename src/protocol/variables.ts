/** The environment that carries the rendezvous's CURVE keys (Z85) and the join's deadline, beside torchrun's variables. */
export const rendezvousVariables = {
  serverKey: "DITRUN_SERVER_KEY",
  publicKey: "DITRUN_PUBLIC_KEY",
  secretKey: "DITRUN_SECRET_KEY",
  timeoutSeconds: "DITRUN_TIMEOUT",
  logLevel: "DITRUN_LOG_LEVEL",
  /** Marks every process that a worker starts, however far it goes: at the end of the job none of them is left. */
  job: "DITRUN_JOB",
  /** This host's address, as the ranks of other hosts reach it; set where a launch has several hosts. */
  address: "DITRUN_ADDRESS",
} as const;
