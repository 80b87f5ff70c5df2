// Answers requests with two compiled nets: a thread for each core, each of which computes a request alone.
//
//   ./server < requests
//
// A request is a line "NET PICTURE", such as "resnet18 cat.ppm", where the picture is a binary PPM (P6) of the net's
// size; the answer is a line with the class of the largest score, or with what is wrong. Answers come as they are
// ready. README.md beside this file says how to build it.
#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <queue>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mobilenet_v2.h"
#include "resnet18.h"

namespace {

// What the header of a net of one colour picture says.
struct Net {
  int (*run)(const float *input, float *output, void *workspace);
  const char *(*error)(int status);
  std::size_t height, width, classes, workspace_bytes, alignment;
};

#define NET(name, NAME)                                                                                        \
  {#name, Net{name##_run, name##_error, name##_shape[2], name##_shape[3], NAME##_OUTPUT0_ELEMENTS,             \
              NAME##_WORKSPACE_BYTES, NAME##_WORKSPACE_ALIGNMENT}}

constexpr std::size_t resnet18_shape[] = RESNET18_INPUT0_SHAPE, mobilenet_v2_shape[] = MOBILENET_V2_INPUT0_SHAPE;
const std::map<std::string, Net> nets = {NET(resnet18, RESNET18), NET(mobilenet_v2, MOBILENET_V2)};

// Memory that a call works in: one for each thread and net, as calls that run at the same time may not share it.
class Workspace {
 public:
  explicit Workspace(const Net &net) : alignment_{net.alignment}, data_{::operator new(net.workspace_bytes, alignment_)} {}
  ~Workspace() { ::operator delete(data_, alignment_); }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  void *data() const { return data_; }

 private:
  std::align_val_t alignment_;
  void *data_;
};

// Returns a picture by planes, normalized as torchvision's ImageNet networks expect.
std::vector<float> read_picture(const std::string &path, const Net &net) {
  static constexpr float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open the picture");
  std::string kind;
  std::size_t width = 0, height = 0, most = 0;
  file >> kind >> width >> height >> most;
  if (kind != "P6" || most != 255 || width != net.width || height != net.height)
    throw std::runtime_error("expected a binary PPM (P6) of " + std::to_string(net.width) + " x " +
                             std::to_string(net.height) + " pixels");
  file.get();
  const std::size_t pixels = width * height;
  std::vector<char> bytes(3 * pixels);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw std::runtime_error("the picture ends early");
  std::vector<float> values(bytes.size());
  for (std::size_t c = 0; c < 3; c++)
    for (std::size_t i = 0; i < pixels; i++) {
      const float value = static_cast<float>(static_cast<unsigned char>(bytes[3 * i + c])) / 255;
      values[c * pixels + i] = (value - mean[c]) / deviation[c];
    }
  return values;
}

// One thread of the server.
class Worker {
 public:
  std::string answer(const std::string &name, const std::string &path) {
    const auto found = nets.find(name);
    if (found == nets.end()) throw std::runtime_error("expected resnet18 or mobilenet_v2, got " + name);
    const Net &net = found->second;
    auto &workspace = workspaces_[name];
    if (!workspace) workspace = std::make_unique<Workspace>(net);
    const std::vector<float> input = read_picture(path, net);
    std::vector<float> scores(net.classes);
    const int status = net.run(input.data(), scores.data(), workspace->data());
    if (status != 0) throw std::runtime_error(net.error(status));
    const auto best = std::max_element(scores.begin(), scores.end());
    std::ostringstream text;
    text << "class " << best - scores.begin() << ", score " << *best;
    return text.str();
  }

 private:
  std::map<std::string, std::unique_ptr<Workspace>> workspaces_;
};

// Requests that wait for a thread; closed when no more come.
class Queue {
 public:
  void push(std::string request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push(std::move(request));
    changed_.notify_one();
  }
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  bool pop(std::string &request) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
    if (waiting_.empty()) return false;
    request = std::move(waiting_.front());
    waiting_.pop();
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::string> waiting_;
  bool closed_ = false;
};

void serve(Queue &queue, std::mutex &output) {
  Worker worker;
  for (std::string request; queue.pop(request);) {
    std::istringstream words(request);
    std::string name, path, answer;
    words >> name >> path;
    try {
      answer = worker.answer(name, path);
    } catch (const std::exception &error) {
      answer = error.what();
    }
    const std::lock_guard<std::mutex> lock(output);
    std::cout << request << ": " << answer << std::endl;
  }
}

}  // namespace

int main() {
  Queue queue;
  std::mutex output;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); i++)
    threads.emplace_back(serve, std::ref(queue), std::ref(output));
  for (std::string line; std::getline(std::cin, line);) queue.push(line);
  queue.close();
  for (std::thread &thread : threads) thread.join();
}
