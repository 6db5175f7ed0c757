import type { Device } from "../runtime/device.js";

/** Runs the body, which begins to load from what is open, waits until all of it is there, and closes that. @throws what failed first. */
export async function whileOpen<T>(
  device: Device,
  open: { close(): Promise<void> },
  body: () => Promise<T>,
): Promise<T> {
  try {
    const loaded = await body();
    await device.synchronize();
    return loaded;
  } catch (error) {
    // Nothing may read what is about to be closed.
    await device.reader.close();
    throw error;
  } finally {
    await open.close();
  }
}
