// ditrun_gather_rows: rows of an embedding table.
#include "runtime/operands.h"

/** A block a row. */
__global__ void gatherRows(void *out, int outDtype, const void *table, int tableDtype, int tableRows,
                           const int32_t *ids, int columns, bool vectorized) {
  const int row = blockIdx.x, id = ids[row];
  const int64_t to = int64_t(row) * columns, from = int64_t(id) * columns;
  const bool inside = id >= 0 && id < tableRows;
  const float nan = __int_as_float(0x7fffffff);
  if (vectorized) {
    for (int column = threadIdx.x * vectorWidth; column < columns; column += blockDim.x * vectorWidth) {
      float values[vectorWidth];
#pragma unroll
      for (int j = 0; j < vectorWidth; j++) values[j] = nan;
      if (inside) load8(table, from + column, tableDtype == DITRUN_BF16, values);
      store8(out, to + column, outDtype == DITRUN_BF16, values);
    }
  } else {
    for (int column = threadIdx.x; column < columns; column += blockDim.x)
      storeOne(out, to + column, outDtype, inside ? loadOne(table, from + column, tableDtype) : nan);
  }
}

int ditrun_gather_rows(uint64_t out, int outDtype, uint64_t table, int tableDtype, int tableRows, uint64_t ids,
                       int rows, int columns, uint64_t stream) {
  const char *const what = "ditrun_gather_rows";
  TRY(useDevice());
  if (!isFloat(outDtype) || !isFloat(tableDtype))
    return fail(DITRUN_INVALID_ARGUMENT, "%s takes f32 or bf16, got a table of %s and out of %s.", what,
                dtypeName(tableDtype), dtypeName(outDtype));
  if (rows < 0 || columns <= 0 || tableRows <= 0)
    return fail(DITRUN_INVALID_ARGUMENT, "%s got %d ids and a table of %d rows of %d columns.", what, rows, tableRows,
                columns);
  if (rows == 0) return DITRUN_OK;
  TRY(checkAddress(what, "out", out, outDtype));
  TRY(checkAddress(what, "the table", table, tableDtype));
  TRY(checkAddress(what, "the ids", ids, DITRUN_I32));
  const bool vectorized = columns % vectorWidth == 0 && aligned16(out) && aligned16(table);
  gatherRows<<<rows, 256, 0, asStream(stream)>>>(asPointer<void>(out), outDtype, asPointer<void>(table), tableDtype,
                                                 tableRows, asPointer<int32_t>(ids), columns, vectorized);
  return launched(what);
}
