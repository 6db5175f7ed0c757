#include "runtime/device.h"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

static std::mutex openMutex;
static std::atomic<int> openDevice{-1};
static DeviceFacts facts{-1, 0, 0, 0};
static thread_local int threadDevice = -1;

int useDevice() {
  const int device = openDevice.load(std::memory_order_acquire);
  if (device < 0) return fail(DITRUN_INVALID_ARGUMENT, "No device is open: call ditrun_device_open first.");
  if (threadDevice != device) {
    CUDA_TRY(cudaSetDevice(device));
    threadDevice = device;
  }
  return DITRUN_OK;
}

const DeviceFacts &deviceFacts() { return facts; }

int ditrun_device_count(int *count) {
  if (!count)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_device_count needs a place for the count, got a null pointer.");
  *count = 0;
  const cudaError_t error = cudaGetDeviceCount(count);
  if (error == cudaErrorNoDevice) {
    cudaGetLastError();
    *count = 0;
    return DITRUN_OK;
  }
  if (error == cudaErrorInsufficientDriver || error == cudaErrorSystemDriverMismatch) {
    cudaGetLastError();
    return fail(DITRUN_LIBRARY_MISSING,
                "The NVIDIA driver (libcuda.so.1) is missing or older than this module's CUDA runtime (%s): install a "
                "newer driver.",
                cudaGetErrorString(error));
  }
  return error == cudaSuccess ? DITRUN_OK : failCuda(error, "cudaGetDeviceCount");
}

int ditrun_device_open(int device) {
  std::lock_guard<std::mutex> lock(openMutex);
  int count = 0;
  TRY(ditrun_device_count(&count));
  if (device < 0 || device >= count)
    return fail(DITRUN_INVALID_ARGUMENT,
                "Device %d does not exist: this host shows %d CUDA device%s (see CUDA_VISIBLE_DEVICES).", device, count,
                count == 1 ? "" : "s");
  const int current = openDevice.load();
  if (current == device) return DITRUN_OK;
  if (current >= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "Device %d is open already: close it before device %d is opened.", current,
                device);

  // Waiting threads sleep instead of spinning: several workers may share few cores.
  CUDA_TRY(cudaInitDevice(device, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid));
  CUDA_TRY(cudaSetDevice(device));
  threadDevice = device;
  DeviceFacts found{device, 0, 0, 0};
  CUDA_TRY(cudaDeviceGetAttribute(&found.major, cudaDevAttrComputeCapabilityMajor, device));
  CUDA_TRY(cudaDeviceGetAttribute(&found.minor, cudaDevAttrComputeCapabilityMinor, device));
  CUDA_TRY(cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, device));
  if (found.major < 8)
    return fail(DITRUN_UNSUPPORTED, "Device %d has compute capability %d.%d: the CUDA module needs 8.0 or newer.",
                device, found.major, found.minor);
  facts = found;
  openDevice.store(device, std::memory_order_release);
  gemmOpen();
  return DITRUN_OK;
}

int ditrun_device_close(void) {
  std::lock_guard<std::mutex> lock(openMutex);
  if (openDevice.load() < 0) return DITRUN_OK;
  TRY(useDevice());
  CUDA_TRY(cudaDeviceSynchronize());
  gemmClose();
  openDevice.store(-1);
  return DITRUN_OK;
}

// Dense floating-point operations per clock and multiprocessor, from NVIDIA's architecture white papers (an FMA counts
// two).
struct Rates {
  int major, minor;
  int f32, bf16, e4m3;
};
static const Rates knownRates[] = {{8, 0, 128, 2048, 0}, {9, 0, 256, 4096, 8192}};

/** Two transfers per memory clock and bus line, in 10^9 bytes a second; null where the driver does not tell. */
static std::string bandwidthText(int memoryKHz, int busBits) {
  if (memoryKHz <= 0 || busBits <= 0) return "null";
  char text[32];
  snprintf(text, sizeof text, "%.1f", 2.0 * memoryKHz * 1e3 * busBits / 8 / 1e9);
  return text;
}

static std::string peakText(int rate, int multiprocessors, int clockKHz) {
  if (rate == 0) return "null";
  char text[32];
  snprintf(text, sizeof text, "%.1f", double(rate) * multiprocessors * clockKHz * 1e3 / 1e12);
  return text;
}

static std::string quotedOrNull(const char *text) {
  if (!text) return "null";
  std::string quoted = "\"";
  quoted += text;
  quoted += '"';
  return quoted;
}

int ditrun_device_info(char *json, int capacity) {
  TRY(useDevice());
  if (!json || capacity <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_device_info needs a buffer, got %p with %d bytes.", (void *)json,
                capacity);
  cudaDeviceProp properties;
  CUDA_TRY(cudaGetDeviceProperties(&properties, facts.index));
  int clockKHz = 0;
  CUDA_TRY(cudaDeviceGetAttribute(&clockKHz, cudaDevAttrClockRate, facts.index));
  int memoryKHz = 0, busBits = 0;
  CUDA_TRY(cudaDeviceGetAttribute(&memoryKHz, cudaDevAttrMemoryClockRate, facts.index));
  CUDA_TRY(cudaDeviceGetAttribute(&busBits, cudaDevAttrGlobalMemoryBusWidth, facts.index));
  size_t freeBytes = 0, totalBytes = 0;
  CUDA_TRY(cudaMemGetInfo(&freeBytes, &totalBytes));
  Rates rates{facts.major, facts.minor, 0, 0, 0};
  for (const Rates &known : knownRates)
    if (known.major == facts.major && known.minor == facts.minor) rates = known;

  char head[512];
  snprintf(head, sizeof head,
           "{\"name\":\"%s\",\"module\":\"cuda\",\"computeCapability\":\"%d.%d\",\"multiprocessors\":%d,\"clockMHz\":%"
           "d,\"memoryBytes\":%zu,\"freeBytes\":%zu,",
           properties.name, facts.major, facts.minor, facts.multiprocessors, clockKHz / 1000, totalBytes, freeBytes);
  const std::string text = std::string(head) +
                           "\"peakTflops\":{\"f32\":" + peakText(rates.f32, facts.multiprocessors, clockKHz) +
                           ",\"bf16\":" + peakText(rates.bf16, facts.multiprocessors, clockKHz) +
                           ",\"e4m3\":" + peakText(rates.e4m3, facts.multiprocessors, clockKHz) +
                           "},\"peakGBs\":" + bandwidthText(memoryKHz, busBits) +
                           ",\"libraries\":{\"cublasLt\":" + quotedOrNull(cublasLtVersion()) +
                           ",\"nccl\":" + quotedOrNull(ncclVersion()) + "}}";
  if (int(text.size()) >= capacity)
    return fail(DITRUN_INVALID_ARGUMENT, "ditrun_device_info needs %zu bytes, the buffer has %d.", text.size() + 1,
                capacity);
  snprintf(json, capacity, "%s", text.c_str());
  return DITRUN_OK;
}
