#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "runtime/error.h"

namespace {

/** The text after "KEY ... :" on the first line of a /proc file that starts with KEY; empty if there is none. */
std::string procValue(const char *file, const std::string &key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t start = line.find_first_not_of(" \t", line.find(':') + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::string quoted(const std::string &text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) json += c;
  }
  return json + "\"";
}

}  // namespace

using namespace ditrun;

int ditrun_abi_version(void) { return DITRUN_ABI_VERSION; }
const char *ditrun_module(void) { return "cpu"; }

/** The CPU is one device, however many cores it has. */
int ditrun_device_count(int *count) {
  return guarded([&] {
    require(count != nullptr, "ditrun_device_count: count is null.");
    *count = 1;
  });
}

int ditrun_device_open(int) {
  return guarded([&] {
#ifdef __AVX2__
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
      throw Failure(DITRUN_UNSUPPORTED,
                    "ditrun_device_open: this build of the CPU module needs AVX2 and FMA, which this "
                    "processor does not have; rebuild it here with "
                    "DITRUN_CMAKE_ARGS=-DDITRUN_CPU_ARCH=x86-64-v2.");
    }
#endif
  });
}

int ditrun_device_close(void) {
  return guarded([] {});
}

/** peakTflops and peakGBs are null: the operating system tells neither the width of the vector units nor the memory's.
 */
int ditrun_device_info(char *json, int capacity) {
  return guarded([&] {
    require(json != nullptr && capacity > 0, "ditrun_device_info: json is null or capacity, ", capacity,
            ", is not positive.");
    std::string name = procValue("/proc/cpuinfo", "model name");
    if (name.empty()) name = "CPU";
    const std::string clock = procValue("/proc/cpuinfo", "cpu MHz");
    const std::string available = procValue("/proc/meminfo", "MemAvailable");
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t total = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * page;
    const uint64_t free = available.empty() ? static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) * page
                                            : std::strtoull(available.c_str(), nullptr, 10) * 1024;
    const std::string text = sentence(
        R"({"name":)", quoted(name), R"(,"module":"cpu","computeCapability":null,"multiprocessors":)",
        std::max(1u, std::thread::hardware_concurrency()), R"(,"clockMHz":)", clock.empty() ? "null" : clock,
        R"(,"memoryBytes":)", total, R"(,"freeBytes":)", free,
        R"(,"peakTflops":{"f32":null,"bf16":null,"e4m3":null},"peakGBs":null,"libraries":{"cublasLt":null,"nccl":null}})");
    require(text.size() < static_cast<size_t>(capacity), "ditrun_device_info: capacity is ", capacity, " but ",
            text.size() + 1, " bytes are needed.");
    std::memcpy(json, text.c_str(), text.size() + 1);
  });
}
