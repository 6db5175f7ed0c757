// What several operators check of their operands before they launch.
#pragma once

#include "runtime/device.h"
#include "runtime/numbers.cuh"

/** Whether `count` elements of dtype can lie there. @return a ditrun_status */
inline int checkArray(const char *what, uint64_t address, int64_t count, int dtype) {
  if (count < 0) return fail(DITRUN_INVALID_ARGUMENT, "%s got a count of %lld.", what, (long long)count);
  if (count > 0 && (address == 0 || address % dtypeBytes(dtype) != 0))
    return fail(DITRUN_INVALID_ARGUMENT, "%s got the address 0x%llx for %lld elements of %s.", what,
                (unsigned long long)address, (long long)count, dtypeName(dtype));
  return DITRUN_OK;
}

inline int checkFloat(const char *what, int dtype) {
  if (isFloat(dtype)) return DITRUN_OK;
  return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, not %s (dtype %d).", what, dtypeName(dtype), dtype);
}

/** Whether the operand of this name can lie there. @return a ditrun_status */
inline int checkAddress(const char *what, const char *name, uint64_t address, int dtype) {
  if (address != 0 && address % dtypeBytes(dtype) == 0) return DITRUN_OK;
  return fail(DITRUN_INVALID_ARGUMENT, "%s got the address 0x%llx for %s of %s.", what, (unsigned long long)address,
              name, dtypeName(dtype));
}
