#include "runtime/library.h"

#include <dlfcn.h>

#include <cstdlib>

void *Library::symbol(const char *name) {
  if (!handle) return nullptr;
  void *address = dlsym(handle, name);
  if (!address) problem = std::string(name) + " is missing from the library: " + dlerror() + ".";
  return address;
}

Library openLibrary(const char *variable, const std::vector<std::string> &names, const char *what) {
  Library library;
  const char *chosen = getenv(variable);
  if (chosen && *chosen) {
    library.handle = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
    if (!library.handle)
      library.problem =
          std::string(what) + " could not be opened from " + variable + "=" + chosen + ": " + dlerror() + ".";
    return library;
  }
  const std::vector<std::string> folders = {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/x86_64-linux/lib/",
                                            "/usr/lib/x86_64-linux-gnu/", "/usr/lib/aarch64-linux-gnu/"};
  std::string tried;
  for (const std::string &name : names) {
    for (const std::string &folder : folders) {
      library.handle = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library.handle) return library;
    }
    tried += (tried.empty() ? "" : " or ") + name;
  }
  library.problem = std::string(what) + " (" + tried +
                    ") was not found: install it, add its folder to LD_LIBRARY_PATH, or set " + variable +
                    " to the file.";
  return library;
}
