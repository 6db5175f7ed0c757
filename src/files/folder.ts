import { existsSync, mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * Makes a folder and those above it, as mkdirSync does with `recursive`; but that never returns where a file system answers
 * ENOENT inside a folder that exists, as /proc does. @throws the file system's own error.
 */
export function makeFolder(path: string): void {
  const missing: string[] = [];
  for (let each = resolve(path); !existsSync(each); each = dirname(each)) missing.unshift(each);
  for (const each of missing) {
    try {
      mkdirSync(each);
    } catch (error) {
      // Another run may have made it meanwhile.
      if (!existsSync(each) || !statSync(each).isDirectory()) throw error;
    }
  }
  if (!statSync(path).isDirectory()) mkdirSync(path);
}
