// Streams, events and graphs as the ABI names them. A capture records, for every stream that takes part, a lane of
// steps; a launch replays the first lane on the launching stream and the others on streams that the graph owns, so
// lanes still run beside each other and wait for each other where they did when recorded.
#include <vector>

#include "runtime/stream.h"

namespace ditrun {
namespace {

struct Step {
  Stream::Work work;       // or, if empty:
  int point = 0;           // a point of the capture
  bool completes = false;  // completes it, or waits for it
};

struct Lane {
  std::vector<Step> steps;
  bool joined = true;  // whether an event after its last step has been waited for by another lane
};

struct Capture {
  uint64_t origin;
  std::vector<Lane> lanes;
  std::unordered_map<uint64_t, size_t> laneOf;  // by stream
  std::vector<size_t> pointLane;
};

struct Event {
  std::mutex mutex;
  std::shared_ptr<Point> point;      // recorded on a running stream
  std::shared_ptr<Capture> capture;  // or in a capture, as its point `captured`
  int captured = 0;
};

using Lanes = std::vector<std::vector<Step>>;

struct Graph {
  std::shared_ptr<const Lanes> lanes;  // shared with launches still queued when the graph is destroyed
  size_t points = 0;
  std::vector<std::unique_ptr<Stream>> sideStreams;
};

// Never destroyed: at exit stream threads may still run, and the process ends them.
struct State {
  Table<Stream> streams{"stream"};
  Table<Event> events{"event"};
  Table<Graph> graphs{"graph"};
  std::mutex captureMutex;
  std::unordered_map<uint64_t, std::shared_ptr<Capture>> capturing;  // by stream
  std::once_flag defaultStreamOnce;
  std::shared_ptr<Stream> defaultStream;
};
State &state() {
  static State *const instance = new State;
  return *instance;
}

std::shared_ptr<Capture> captureOf(uint64_t stream) {  // under captureMutex
  const auto found = state().capturing.find(stream);
  return found == state().capturing.end() ? nullptr : found->second;
}

/** One lane of one launch. Its points complete even if it never runs, so no other lane waits for ever. */
class LaneRun {
 public:
  using Points = std::shared_ptr<std::vector<std::unique_ptr<Point>>>;
  LaneRun(std::shared_ptr<const Lanes> lanes, size_t lane, Points points)
      : lanes_(std::move(lanes)), lane_(lane), points_(std::move(points)) {}
  ~LaneRun() {
    completeAll(Failure(DITRUN_DEVICE_ERROR, "A part of the graph that this stream waits for was not run."));
  }
  LaneRun(const LaneRun &) = delete;
  LaneRun &operator=(const LaneRun &) = delete;

  void run(Stream &stream) {
    try {
      for (const Step &step : (*lanes_)[lane_]) {
        if (step.work) {
          step.work(stream);
        } else if (step.completes) {
          (*points_)[step.point]->complete(std::nullopt);
        } else {
          (*points_)[step.point]->wait(stream.stop());
        }
      }
    } catch (const Failure &failure) {
      completeAll(failure);
      throw;
    }
  }

 private:
  void completeAll(const Failure &failure) {
    for (const Step &step : (*lanes_)[lane_]) {
      if (!step.work && step.completes) (*points_)[step.point]->complete(failure);
    }
  }
  std::shared_ptr<const Lanes> lanes_;
  size_t lane_;
  Points points_;
};

void requireNotCaptured(const char *function, uint64_t stream) {
  std::lock_guard lock(state().captureMutex);
  require(!captureOf(stream), function, ": stream ", stream, " is being captured; end the capture first.");
}

}  // namespace

std::shared_ptr<Stream> findStream(const char *function, uint64_t stream) {
  if (stream != 0) return state().streams.find(function, stream);
  std::call_once(state().defaultStreamOnce, [] { state().defaultStream = std::make_shared<Stream>(); });
  return state().defaultStream;
}

void submit(const char *function, uint64_t stream, Stream::Work work) {
  const auto found = findStream(function, stream);
  {
    std::lock_guard lock(state().captureMutex);
    if (const auto capture = captureOf(stream)) {
      Lane &lane = capture->lanes[capture->laneOf.at(stream)];
      lane.steps.push_back(Step{std::move(work)});
      lane.joined = false;
      return;
    }
  }
  found->push(std::move(work));
}

void submitAndWait(const char *function, uint64_t stream, Stream::Work work) {
  const auto found = findStream(function, stream);
  requireNotCaptured(function, stream);
  found->push(std::move(work));
  found->synchronize();
}

}  // namespace ditrun

using namespace ditrun;

int ditrun_stream_create(int, uint64_t *stream) {
  return guarded([&] {
    require(stream != nullptr, "ditrun_stream_create: stream is null.");
    *stream = state().streams.add(std::make_shared<Stream>());
  });
}

/** Ends a wait for a flag or an event in it, lets a running kernel finish, drops what is still queued. */
int ditrun_stream_destroy(uint64_t stream) {
  return guarded([&] {
    requireNotCaptured("ditrun_stream_destroy", stream);
    state().streams.remove("ditrun_stream_destroy", stream);
  });
}

int ditrun_stream_synchronize(uint64_t stream) {
  return guarded([&] {
    const auto found = findStream("ditrun_stream_synchronize", stream);
    requireNotCaptured("ditrun_stream_synchronize", stream);
    found->synchronize();
  });
}

int ditrun_event_create(uint64_t *event) {
  return guarded([&] {
    require(event != nullptr, "ditrun_event_create: event is null.");
    *event = state().events.add(std::make_shared<Event>());
  });
}

int ditrun_event_destroy(uint64_t event) {
  return guarded([&] { state().events.remove("ditrun_event_destroy", event); });
}

int ditrun_event_record(uint64_t event, uint64_t stream) {
  return guarded([&] {
    const auto target = state().events.find("ditrun_event_record", event);
    const auto source = findStream("ditrun_event_record", stream);
    std::lock_guard captureLock(state().captureMutex);
    std::lock_guard eventLock(target->mutex);
    if (const auto capture = captureOf(stream)) {
      const size_t lane = capture->laneOf.at(stream);
      target->captured = static_cast<int>(capture->pointLane.size());
      target->capture = capture;
      target->point = nullptr;
      capture->pointLane.push_back(lane);
      capture->lanes[lane].steps.push_back(Step{nullptr, target->captured, true});
      return;
    }
    target->point = std::make_shared<Point>();
    target->capture = nullptr;
    source->pushPoint(target->point, false);
  });
}

/** An event that was never recorded holds nothing up, as in CUDA. */
int ditrun_stream_wait_event(uint64_t stream, uint64_t event) {
  return guarded([&] {
    const auto source = state().events.find("ditrun_stream_wait_event", event);
    const auto target = findStream("ditrun_stream_wait_event", stream);
    std::lock_guard captureLock(state().captureMutex);
    std::lock_guard eventLock(source->mutex);
    if (const auto recorded = source->capture) {
      require(captureOf(recorded->origin) == recorded, "ditrun_stream_wait_event: event ", event,
              " was recorded in a capture that has ended; record it again.");
      const auto current = captureOf(stream);
      require(!current || current == recorded, "ditrun_stream_wait_event: stream ", stream, " and event ", event,
              " belong to two different captures.");
      if (!current) {
        recorded->laneOf[stream] = recorded->lanes.size();
        recorded->lanes.emplace_back();
        state().capturing[stream] = recorded;
      }
      const size_t lane = recorded->laneOf.at(stream);
      const size_t from = recorded->pointLane[source->captured];
      if (from == lane) return;
      recorded->lanes[lane].steps.push_back(Step{nullptr, source->captured, false});
      recorded->lanes[lane].joined = lane == 0;
      // The lane waited for is joined if nothing but points came after this one.
      const auto &steps = recorded->lanes[from].steps;
      for (auto step = steps.rbegin(); step != steps.rend() && !step->work && step->completes; ++step) {
        if (step->point == source->captured) recorded->lanes[from].joined = true;
      }
      return;
    }
    require(!captureOf(stream) || !source->point, "ditrun_stream_wait_event: stream ", stream,
            " is being captured, but event ", event, " was recorded outside of the capture; record it inside.");
    if (!source->point) return;
    target->push([point = source->point](Stream &running) { point->wait(running.stop()); });
  });
}

int ditrun_event_elapsed(uint64_t start, uint64_t end, float *milliseconds) {
  return guarded([&] {
    require(milliseconds != nullptr, "ditrun_event_elapsed: milliseconds is null.");
    const auto timeOf = [](uint64_t event) {
      const auto found = state().events.find("ditrun_event_elapsed", event);
      std::lock_guard lock(found->mutex);
      require(found->point != nullptr, "ditrun_event_elapsed: event ", event,
              found->capture ? " was recorded in a capture, which has no time." : " was never recorded.");
      const auto time = found->point->completedAt();
      require(time.has_value(), "ditrun_event_elapsed: event ", event,
              " has not completed; synchronize its stream first.");
      return *time;
    };
    const auto from = timeOf(start);
    *milliseconds = std::chrono::duration<float, std::milli>(timeOf(end) - from).count();
  });
}

int ditrun_capture_begin(uint64_t stream) {
  return guarded([&] {
    findStream("ditrun_capture_begin", stream);
    requireNotCaptured("ditrun_capture_begin", stream);
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->lanes.emplace_back();
    capture->laneOf[stream] = 0;
    std::lock_guard lock(state().captureMutex);
    state().capturing[stream] = std::move(capture);
  });
}

int ditrun_capture_end(uint64_t stream, uint64_t *graph) {
  return guarded([&] {
    require(graph != nullptr, "ditrun_capture_end: graph is null.");
    std::shared_ptr<Capture> capture;
    {
      std::lock_guard lock(state().captureMutex);
      capture = captureOf(stream);
      require(capture && capture->origin == stream, "ditrun_capture_end: no capture was begun on stream ", stream, ".");
      for (const auto &[member, lane] : capture->laneOf) state().capturing.erase(member);
    }
    for (const auto &[member, lane] : capture->laneOf) {
      require(lane == 0 || capture->lanes[lane].joined, "ditrun_capture_end: stream ", member,
              " joined the capture but stream ", stream,
              " does not wait for its last work; record an event there and wait for it.");
    }
    auto made = std::make_shared<Graph>();
    made->points = capture->pointLane.size();
    Lanes lanes;
    for (Lane &lane : capture->lanes) lanes.push_back(std::move(lane.steps));
    for (size_t lane = 1; lane < lanes.size(); lane++) made->sideStreams.push_back(std::make_unique<Stream>());
    made->lanes = std::make_shared<const Lanes>(std::move(lanes));
    *graph = state().graphs.add(std::move(made));
  });
}

int ditrun_graph_launch(uint64_t graph, uint64_t stream) {
  return guarded([&] {
    const auto found = state().graphs.find("ditrun_graph_launch", graph);
    const auto target = findStream("ditrun_graph_launch", stream);
    requireNotCaptured("ditrun_graph_launch", stream);
    const auto points = std::make_shared<std::vector<std::unique_ptr<Point>>>();
    for (size_t i = 0; i < found->points; i++) points->push_back(std::make_unique<Point>());
    for (size_t lane = 0; lane < found->lanes->size(); lane++) {
      Stream &running = lane == 0 ? *target : *found->sideStreams[lane - 1];
      // A side stream's failure has reached the launching stream through the points; the next launch starts afresh.
      if (lane > 0) running.pushPoint(std::make_shared<Point>(), true);
      const auto laneRun = std::make_shared<LaneRun>(found->lanes, lane, points);
      // The first lane keeps the side streams: a graph may be destroyed while a launch of it is under way. (It ends
      // last and on another thread than theirs, as joining them needs.)
      running.push([laneRun, graphInUse = lane == 0 ? found : nullptr](Stream &on) { laneRun->run(on); });
    }
  });
}

int ditrun_graph_destroy(uint64_t graph) {
  return guarded([&] { state().graphs.remove("ditrun_graph_destroy", graph); });
}
