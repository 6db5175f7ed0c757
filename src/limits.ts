/** Workers of one job: a higher number is a typing mistake. */
export const mostWorkers = 1024;

/** Seeds have 64 bits. */
export const largestSeed = 2n ** 64n - 1n;
