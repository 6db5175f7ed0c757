// What ditrun_malloc gave out.
#pragma once
#include "runtime/device.h"

struct Allocation {
  uint64_t base, bytes;
  int memory;  // ditrun_memory
};

/** The allocation that holds address, if this module made it. */
bool findAllocation(uint64_t address, Allocation *found);
