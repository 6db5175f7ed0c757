/** What a GPU of a kind does when nothing holds it back. */
export interface KnownDevice {
  /** As people call it. */
  readonly name: string;
  /** Of the name that its driver gives it. */
  readonly pattern: RegExp;
  /** Dense bf16, 10^12 operations a second, of NVIDIA's data sheet. */
  readonly bf16Tflops: number;
  /** 10^9 bytes a second of its memory, of the data sheet. */
  readonly memoryGBs: number;
}

/** The first that fits counts, so the longer names stand first. Sources: NVIDIA's data sheets of each. */
export const knownDevices: readonly KnownDevice[] = [
  { name: "B200", pattern: /\bB200\b/, bf16Tflops: 2250, memoryGBs: 8000 },
  { name: "H200 NVL", pattern: /\bH200 NVL\b/, bf16Tflops: 835, memoryGBs: 4800 },
  { name: "H200", pattern: /\bH200\b/, bf16Tflops: 989, memoryGBs: 4800 },
  { name: "H100 PCIe", pattern: /\bH100 PCIe\b/, bf16Tflops: 756, memoryGBs: 2000 },
  { name: "H100 NVL", pattern: /\bH100 NVL\b/, bf16Tflops: 835, memoryGBs: 3900 },
  { name: "H100", pattern: /\bH100\b/, bf16Tflops: 989, memoryGBs: 3350 },
  { name: "H20", pattern: /\bH20\b/, bf16Tflops: 148, memoryGBs: 4000 },
  { name: "A100 80GB PCIe", pattern: /\bA100 80GB PCIe\b/, bf16Tflops: 312, memoryGBs: 1935 },
  { name: "A100 80GB", pattern: /\bA100-SXM4-80GB\b/, bf16Tflops: 312, memoryGBs: 2039 },
  { name: "A100", pattern: /\bA100\b/, bf16Tflops: 312, memoryGBs: 1555 },
  { name: "L40S", pattern: /\bL40S\b/, bf16Tflops: 362, memoryGBs: 864 },
  { name: "L4", pattern: /\bL4\b/, bf16Tflops: 121, memoryGBs: 300 },
  { name: "A10", pattern: /\bA10\b/, bf16Tflops: 125, memoryGBs: 600 },
  { name: "RTX 4090", pattern: /\bRTX 4090\b/, bf16Tflops: 165, memoryGBs: 1008 },
];

export function knownDevice(name: string): KnownDevice | undefined {
  return knownDevices.find(({ pattern }) => pattern.test(name));
}

/**
 * What of a data sheet's rates programs reach on a GPU that is well. An H200 lets its clock fall under large products, to 700 to 750 of its
 * 989 TFLOP/s, and carries up to 4.2 of its 4.8 TB/s in long copies (bench/NOTES.md).
 */
export const usualShare = { gemm: 0.72, copy: 0.85 } as const;

/** Below this part of the usual rate something holds a GPU back. */
export const LEAST_OF_USUAL = 0.85;
