// What the readers of both modules have in common: jobs cut into pieces, handed to threads in order, read, and counted.
#pragma once

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include "ditrun.h"
#include "shared/stored.h"

namespace reading {

/** Why a reader has ended. The last three only of a file that could not be read. */
struct Problem {
  int status;
  std::string sentence;
  uint64_t ticket = 0, offset = 0;
  int error = 0;
};

/** Rows of a file to decode. `After` is what the module lets them wait for. */
template <class After>
struct Job {
  int file;
  uint64_t offset;
  ditrun_decode_args decode;  // as one row where rows follow each other without gaps and share a scale
  std::vector<float> scales;
  After after;

  uint64_t ticket = 0;
  int64_t rowsAtOnce = 0, columnsAtOnce = 0;  // of a piece
  int64_t nextRow = 0, nextColumn = 0;
  int64_t unfinished = 0;
  bool allBegun = false;
};

/** Rows [row, row + rows) and columns [column, column + columns) of a job. */
template <class After>
struct Piece {
  std::shared_ptr<Job<After>> job;
  int64_t row, rows, column, columns;

  stored::Block block() const { return stored::blockOf(job->decode.stored); }
  /** The first column of the file's row that is read: a block begins with it. */
  int64_t firstRead() const {
    const int64_t first = job->decode.firstColumn + column;
    return first - first % block().elements;
  }
  /** Bytes from the first to the last, gaps between rows included. */
  int64_t span() const {
    const int64_t elements = job->decode.firstColumn + column + columns - firstRead();
    const int64_t blocks = (elements + block().elements - 1) / block().elements;
    return (rows - 1) * job->decode.rowBytes + blocks * block().bytes;
  }
  /** Where its scales stand in a slot, behind what is read. */
  int64_t scalesAt() const { return (span() + 15) / 16 * 16; }
  int64_t bytes() const { return scalesAt() + int64_t(scaleCount() * sizeof(float)); }
  size_t scaleCount() const {
    return job->scales.empty() ? 0 : job->decode.scaleRows == 0 ? 1 : static_cast<size_t>(rows);
  }

  /** Reads it and its scales to a slot on the host. */
  std::optional<Problem> read(uint8_t *slot) const {
    const uint64_t from =
        job->offset + uint64_t(row * job->decode.rowBytes) + uint64_t(firstRead() / block().elements * block().bytes);
    const int64_t length = span();
    for (int64_t done = 0; done < length;) {
      const ssize_t got = pread(job->file, slot + done, size_t(length - done), off_t(from + uint64_t(done)));
      if (got > 0) {
        done += got;
      } else if (got == 0 || errno != EINTR) {
        const int error = got == 0 ? 0 : errno;
        // A piece may begin far behind the end of a file that has become shorter.
        struct stat now;
        const bool known = error == 0 && fstat(job->file, &now) == 0;
        const uint64_t at = known ? std::min(uint64_t(now.st_size), from + uint64_t(done)) : from + uint64_t(done);
        return Problem{DITRUN_FILE_ERROR,
                       error == 0
                           ? "A file ended at byte " + std::to_string(at) + " while it was read."
                           : "A file could not be read at byte " + std::to_string(at) + ": " + strerror(error) + ".",
                       job->ticket, at, error};
      }
    }
    const size_t firstScale = job->decode.scaleRows == 0 ? 0 : size_t(row);
    if (scaleCount() > 0) memcpy(slot + scalesAt(), job->scales.data() + firstScale, scaleCount() * sizeof(float));
    return std::nullopt;
  }

  /** How to decode it from a slot at this address, of outBytes per element of the job's out. */
  ditrun_decode_args argsAt(uint64_t slot, int64_t outBytes) const {
    ditrun_decode_args args = job->decode;
    args.x = slot;
    args.scale = scaleCount() > 0 ? slot + uint64_t(scalesAt()) : 0;
    args.out += uint64_t((row * args.ldo + column) * outBytes);
    if (args.outScale != 0) args.outScale += uint64_t(row) * sizeof(float);
    if (args.squares != 0) args.squares += uint64_t(row) * sizeof(float);
    args.firstColumn += column - firstRead();
    args.rows = int32_t(rows);
    args.columns = columns;
    return args;
  }
};

template <class After>
class Queue {
 public:
  explicit Queue(uint64_t pieceBytes) : pieceBytes_(int64_t(pieceBytes)) {}

  /** Queues a job whose arguments the module has checked. @return its ticket, or why there is none. */
  std::optional<Problem> push(std::shared_ptr<Job<After>> job, uint64_t *ticket) {
    if (!cut(*job))
      return Problem{DITRUN_INVALID_ARGUMENT, "A reader of pieces of " + std::to_string(pieceBytes_) +
                                                  " bytes cannot quantise rows of " +
                                                  std::to_string(job->decode.rowBytes) + "."};
    std::lock_guard lock(mutex_);
    if (problem_) return problem_;
    *ticket = job->ticket = ++last_;
    waiting_.push_back(job);
    jobs_.push_back(std::move(job));
    begun_.notify_all();
    return std::nullopt;
  }

  /** The next piece; nothing once the reader ends. */
  std::optional<Piece<After>> take() {
    std::unique_lock lock(mutex_);
    begun_.wait(lock, [this] { return ending_ || problem_ || !waiting_.empty(); });
    if (ending_ || problem_) return std::nullopt;
    const std::shared_ptr<Job<After>> job = waiting_.front();
    const ditrun_decode_args &whole = job->decode;
    const int64_t rows = std::min(job->rowsAtOnce, whole.rows - job->nextRow);
    const int64_t columns = std::min(job->columnsAtOnce, whole.columns - job->nextColumn);
    const Piece<After> piece{job, job->nextRow, rows, job->nextColumn, columns};
    job->nextColumn += columns;
    if (job->nextColumn == whole.columns) job->nextColumn = 0, job->nextRow += rows;
    job->unfinished++;
    if (job->nextRow == whole.rows) {
      job->allBegun = true;
      waiting_.pop_front();
    }
    return piece;
  }

  void finish(const Piece<After> &piece) {
    std::lock_guard lock(mutex_);
    piece.job->unfinished--;
    while (!jobs_.empty() && jobs_.front()->allBegun && jobs_.front()->unfinished == 0) {
      through_ = jobs_.front()->ticket;
      jobs_.pop_front();
    }
    ended_.notify_all();
  }

  /** The first problem counts: what follows is not begun. */
  void fail(Problem problem) {
    std::lock_guard lock(mutex_);
    if (!problem_) problem_ = std::move(problem);
    begun_.notify_all();
    ended_.notify_all();
  }

  void end() {
    std::lock_guard lock(mutex_);
    ending_ = true;
    begun_.notify_all();
    ended_.notify_all();
  }

  /** Waits until the job with this ticket and all before it are finished. @param done the last of which that is so. */
  std::optional<Problem> wait(uint64_t ticket, uint64_t *done) {
    std::unique_lock lock(mutex_);
    if (ticket > last_)
      return Problem{DITRUN_INVALID_ARGUMENT, "No job of this reader has ticket " + std::to_string(ticket) +
                                                  "; the last has " + std::to_string(last_) + "."};
    ended_.wait(lock, [&] { return through_ >= ticket || problem_ || ending_; });
    *done = through_;
    if (through_ >= ticket) return std::nullopt;
    return problem_ ? problem_ : Problem{DITRUN_DEVICE_ERROR, "The reader was closed before the file was read."};
  }

  std::optional<Problem> problem() {
    std::lock_guard lock(mutex_);
    return problem_;
  }

 private:
  /** Decides on the size of pieces. @return false where a row that must be decoded at once is too long for one. */
  bool cut(Job<After> &job) const {
    ditrun_decode_args &whole = job.decode;
    const stored::Block block = stored::blockOf(whole.stored);
    const bool quantised = whole.outDtype == DITRUN_E4M3;
    if (!quantised && whole.scaleRows == 0 && whole.firstColumn == 0 && whole.ldo == whole.columns &&
        whole.columns % block.elements == 0 && whole.rowBytes == whole.columns / block.elements * block.bytes) {
      whole.columns *= whole.rows;
      whole.rowBytes *= whole.rows;
      whole.ldo = whole.columns;
      whole.rows = 1;
    }
    // Room for the scales' alignment, and a scale a row.
    const int64_t room = pieceBytes_ - 32, ofRow = whole.scaleRows == 0 ? 0 : int64_t(sizeof(float));
    const int64_t blocks = whole.columns / block.elements + 2;
    const int64_t rowSpan = blocks * block.bytes + ofRow;
    if (rowSpan <= room) {
      job.columnsAtOnce = whole.columns;
      job.rowsAtOnce = 1 + (room - rowSpan) / (whole.rowBytes + ofRow);
      return true;
    }
    job.rowsAtOnce = 1;
    job.columnsAtOnce = (room / block.bytes - 2) * block.elements;
    return !quantised;
  }

  const int64_t pieceBytes_;
  std::mutex mutex_;
  std::condition_variable begun_, ended_;
  std::deque<std::shared_ptr<Job<After>>> waiting_, jobs_;  // not wholly begun; not wholly finished
  uint64_t last_ = 0, through_ = 0;
  std::optional<Problem> problem_;
  bool ending_ = false;
};

/** What both modules refuse of a decode: the sentence, or nothing. @param reads whether x comes from a file. */
inline std::optional<std::string> refusal(const ditrun_decode_args &a, bool reads) {
  const auto number = [](auto x) { return std::to_string(x); };
  const stored::Block block = stored::blockOf(a.stored);
  if (block.elements == 0) return "there is no stored dtype " + number(a.stored);
  if (a.rows <= 0 || a.columns <= 0 || a.firstColumn < 0)
    return number(a.rows) + " rows of " + number(a.columns) + " columns from column " + number(a.firstColumn) +
           " are not some";
  const int64_t last = a.firstColumn + a.columns, blocks = (last + block.elements - 1) / block.elements;
  if (a.rowBytes < blocks * block.bytes)
    return "rowBytes is " + number(a.rowBytes) + ", but " + number(last) + " columns take " +
           number(blocks * block.bytes);
  if (a.ldo < a.columns) return "ldo is " + number(a.ldo) + ", but a row has " + number(a.columns) + " columns";
  const bool quantised = a.outDtype == DITRUN_E4M3;
  if (!quantised && a.outDtype != DITRUN_F32 && a.outDtype != DITRUN_BF16 && a.outDtype != DITRUN_F16)
    return "outDtype is " + number(a.outDtype) + ", but must be f32, bf16, f16 or e4m3";
  if (quantised && a.ldo != a.columns)
    return "ldo is " + number(a.ldo) + ", but e4m3 rows of " + number(a.columns) + " columns are contiguous";
  if (quantised ? a.outScale == 0 : a.outScale != 0 || a.squares != 0)
    return "outScale is " + number(a.outScale) + " and squares " + number(a.squares) + " with outDtype " +
           number(a.outDtype) + ": e4m3 needs a place for scales, others have none";
  if (a.scaleRows != 0 && a.scaleRows != 1) return "scaleRows is " + number(a.scaleRows) + ", but must be 0 or 1";
  const uint64_t element = a.outDtype == DITRUN_F32 ? 4 : quantised ? 1 : 2;
  if (a.out == 0 || a.out % element != 0 || a.outScale % 4 != 0 || a.squares % 4 != 0 || a.scale % 4 != 0)
    return "out is " + number(a.out) + ", outScale " + number(a.outScale) + ", squares " + number(a.squares) +
           " and scale " + number(a.scale) + ": an address is 0 or not aligned";
  if (reads ? a.x != 0 || a.scale != 0 : a.x == 0 || a.x % uint64_t(stored::alignmentOf(a.stored)) != 0)
    return "x is " + number(a.x) + (reads ? " but comes from the file" : ", which is 0 or not aligned to its elements");
  if (!reads && a.rows > 1 && a.rowBytes % stored::alignmentOf(a.stored) != 0)
    return "rowBytes is " + number(a.rowBytes) + ", but elements take " + number(stored::alignmentOf(a.stored));
  return std::nullopt;
}

/** What both modules refuse of a job's scales: the sentence, or nothing. */
inline std::optional<std::string> scalesRefusal(const ditrun_decode_args &a, const float *scales, int count) {
  const bool fits = a.scaleRows == 1 ? count == a.rows : count == 0 || count == 1;
  if (fits && (count == 0 || scales != nullptr)) return std::nullopt;
  return "scaleCount is " + std::to_string(count) + " with scaleRows " + std::to_string(a.scaleRows) + " for " +
         std::to_string(a.rows) + " rows";
}

}  // namespace reading
