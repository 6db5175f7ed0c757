/** Workers of one host, and of one mesh: a higher number is a typing mistake. */
export const mostWorkers = 1024;
/** Ranks of all hosts of a job. */
export const mostRanks = 65_536;

/** Seeds have 64 bits. */
export const largestSeed = 2n ** 64n - 1n;
