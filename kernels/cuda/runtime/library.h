// Libraries that are opened at run time, so that the module builds without them and names them when they are missing.
#pragma once
#include <string>
#include <vector>

/** An opened shared library, or the reason why there is none. */
struct Library {
  void *handle = nullptr;
  std::string problem;

  /** The address of a symbol; nullptr (and a problem) when the library has none of that name. */
  void *symbol(const char *name);
  template <class Function>
  bool bind(Function *&function, const char *name) {
    function = reinterpret_cast<Function *>(symbol(name));
    return function != nullptr;
  }
};

/** Opens the file that the environment variable names, else the first of names that the loader finds (LD_LIBRARY_PATH
 * included) or that lies in a usual CUDA folder. */
Library openLibrary(const char *variable, const std::vector<std::string> &names, const char *what);
