// Nothing here is newer than Node 12, so that an old one can be told that it is too old.

/** The oldest Node.js that ditrun runs on: major and minor version. */
export const oldest = [20, 19];

/** @returns a sentence with both versions where this Node.js is too old, else undefined. */
export function nodeIsTooOld(version) {
  const parts = version.split(".").map(Number);
  if (parts[0] > oldest[0] || (parts[0] === oldest[0] && parts[1] >= oldest[1])) return undefined;
  return `This is Node.js ${version} (${process.execPath}), and ditrun needs ${oldest.join(".")} or newer.`;
}
