// The part of cuBLASLt's C interface that this module uses, declared here so that the build needs no cuBLASLt headers.
// Values and signatures as documented for cuBLAS 12 and 13 (docs.nvidia.com/cuda/cublas, "cublasLt Datatypes
// Reference").
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "runtime/library.h"

using cublasLtHandle = void *;
using cublasLtMatmulDesc = void *;
using cublasLtMatrixLayout = void *;
using cublasLtMatmulPreference = void *;

struct cublasLtMatmulAlgo {
  uint64_t data[8];
};
struct cublasLtMatmulHeuristicResult {
  cublasLtMatmulAlgo algo;
  size_t workspaceSize;
  int state;
  float wavesCount;
  int reserved[4];
};

enum : int {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
  CUBLAS_OP_N = 0,
  CUBLAS_OP_T = 1,
  CUBLAS_COMPUTE_32F = 68,
  CUDA_TYPE_R_32F = 0,
  CUDA_TYPE_R_16F = 2,
  CUDA_TYPE_R_16BF = 14,
  CUDA_TYPE_R_8F_E4M3 = 28,
};
enum : int {  // cublasLtMatmulDescAttributes_t
  DESC_TRANSA = 3,
  DESC_TRANSB = 4,
  DESC_EPILOGUE = 7,
  DESC_BIAS_POINTER = 8,
  DESC_BIAS_BATCH_STRIDE = 10,
  DESC_A_SCALE_POINTER = 17,
  DESC_B_SCALE_POINTER = 18,
  DESC_FAST_ACCUM = 25,
  DESC_BIAS_DATA_TYPE = 26,
  DESC_A_SCALE_MODE = 31,
  DESC_B_SCALE_MODE = 32,
};
enum : int { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };
// cublasLtMatmulMatrixScale_t, cuBLAS 12.9 and later
enum : int { SCALE_OUTER_VEC_32F = 3 };
enum : int { LAYOUT_BATCH_COUNT = 5, LAYOUT_STRIDED_BATCH_OFFSET = 6 };  // cublasLtMatrixLayoutAttribute_t
enum : int {                                                             // cublasLtMatmulPreferenceAttributes_t
  PREF_MAX_WORKSPACE_BYTES = 1,
  PREF_MIN_ALIGNMENT_A_BYTES = 5,
  PREF_MIN_ALIGNMENT_B_BYTES = 6,
  PREF_MIN_ALIGNMENT_C_BYTES = 7,
  PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

/** cuBLASLt's functions, bound by cublasLtOpen. */
struct CublasLt {
  Library library;
  int (*create)(cublasLtHandle *);
  int (*destroy)(cublasLtHandle);
  size_t (*getVersion)();
  const char *(*statusName)(int);
  int (*descCreate)(cublasLtMatmulDesc *, int computeType, int scaleType);
  int (*descDestroy)(cublasLtMatmulDesc);
  int (*descSet)(cublasLtMatmulDesc, int attribute, const void *value, size_t bytes);
  int (*layoutCreate)(cublasLtMatrixLayout *, int type, uint64_t rows, uint64_t columns, int64_t ld);
  int (*layoutDestroy)(cublasLtMatrixLayout);
  int (*layoutSet)(cublasLtMatrixLayout, int attribute, const void *value, size_t bytes);
  int (*preferenceCreate)(cublasLtMatmulPreference *);
  int (*preferenceDestroy)(cublasLtMatmulPreference);
  int (*preferenceSet)(cublasLtMatmulPreference, int attribute, const void *value, size_t bytes);
  int (*heuristic)(cublasLtHandle, cublasLtMatmulDesc, cublasLtMatrixLayout a, cublasLtMatrixLayout b,
                   cublasLtMatrixLayout c, cublasLtMatrixLayout d, cublasLtMatmulPreference, int requested,
                   cublasLtMatmulHeuristicResult *results, int *returned);
  int (*matmul)(cublasLtHandle, cublasLtMatmulDesc, const void *alpha, const void *a, cublasLtMatrixLayout,
                const void *b, cublasLtMatrixLayout, const void *beta, const void *c, cublasLtMatrixLayout, void *d,
                cublasLtMatrixLayout, const cublasLtMatmulAlgo *, void *workspace, size_t workspaceBytes, cudaStream_t);

  bool open() {
    library = openLibrary("DITRUN_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"}, "cuBLASLt");
    return library.handle && library.bind(create, "cublasLtCreate") && library.bind(destroy, "cublasLtDestroy") &&
           library.bind(getVersion, "cublasLtGetVersion") && library.bind(statusName, "cublasLtGetStatusName") &&
           library.bind(descCreate, "cublasLtMatmulDescCreate") &&
           library.bind(descDestroy, "cublasLtMatmulDescDestroy") &&
           library.bind(descSet, "cublasLtMatmulDescSetAttribute") &&
           library.bind(layoutCreate, "cublasLtMatrixLayoutCreate") &&
           library.bind(layoutDestroy, "cublasLtMatrixLayoutDestroy") &&
           library.bind(layoutSet, "cublasLtMatrixLayoutSetAttribute") &&
           library.bind(preferenceCreate, "cublasLtMatmulPreferenceCreate") &&
           library.bind(preferenceDestroy, "cublasLtMatmulPreferenceDestroy") &&
           library.bind(preferenceSet, "cublasLtMatmulPreferenceSetAttribute") &&
           library.bind(heuristic, "cublasLtMatmulAlgoGetHeuristic") && library.bind(matmul, "cublasLtMatmul");
  }
};
