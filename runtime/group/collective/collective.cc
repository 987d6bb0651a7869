// The program collective does one worker's part of sums and broadcasts among
// the workers of a group, with Gloo. Package group starts it:
//
//   collective RANK SIZE ADDRESS SECONDS
//
// RANK of SIZE workers listens on ADDRESS; SECONDS is how long an operation may
// take. Descriptor 3 is memory that it shares with who started it: operations
// work on what is there from the start on. It talks in lines:
//
//   it writes                          it reads
//   an address for each worker         the addresses that the workers have for
//   (its own: "-"), as hexadecimals    it, likewise
//   "ok", when all are connected       "sum32 COUNT", "sum64 COUNT": of float32
//                                      or float64; "broadcast BYTES": from rank 0
//   "ok" after each operation          ... until there is nothing more to read
//
// After anything else than "ok", which is why it gave up, it ends.
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gloo/allreduce.h>
#include <gloo/broadcast.h>
#include <gloo/context.h>
#include <gloo/math.h>
#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/tcp/device.h>

namespace {

std::string encoded(const std::vector<char>& bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char b : bytes) {
    text += digits[b >> 4];
    text += digits[b & 15];
  }
  return text;
}

std::vector<char> decoded(const std::string& text) {
  std::vector<char> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// Group is a Gloo context whose addresses are exchanged by someone else.
class Group : public gloo::Context {
 public:
  Group(int rank, int size, const std::string& address, std::chrono::seconds patience)
      : gloo::Context(rank, size) {
    setTimeout(patience);
    device_ = gloo::transport::tcp::CreateDevice(address.c_str());
    transportContext_ = device_->createContext(rank, size);
    transportContext_->setTimeout(patience);
    for (int i = 0; i < size; i++) {
      if (i != rank) transportContext_->createPair(i);
    }
  }

  std::string addresses() {
    std::string line;
    for (int i = 0; i < size; i++) {
      line += (i ? " " : "") + (i == rank ? "-" : encoded(getPair(i)->address().bytes()));
    }
    return line;
  }

  void connect(const std::string& line) {
    std::istringstream words(line);
    std::string word;
    for (int i = 0; i < size; i++) {
      if (!(words >> word)) throw std::runtime_error("the address of worker " + std::to_string(i) + " is missing");
      if (i != rank) getPair(i)->connect(decoded(word));
    }
  }
};

// Few numbers take as long as the messages that must be waited for, of which
// this algorithm has fewer; many take as long as their bytes.
constexpr size_t few = 1 << 18;

template <typename T>
void sum(const std::shared_ptr<gloo::Context>& group, void* memory, size_t count) {
  gloo::AllreduceOptions options(group);
  options.setOutput(static_cast<T*>(memory), count);
  void (*add)(void*, const void*, const void*, size_t) = &gloo::sum<T>;
  options.setReduceFunction(add);
  using Algorithm = gloo::AllreduceOptions::Algorithm;
  options.setAlgorithm(count * sizeof(T) <= few ? Algorithm::BCUBE : Algorithm::RING);
  gloo::allreduce(options);
}

void broadcast(const std::shared_ptr<gloo::Context>& group, void* memory, size_t bytes) {
  gloo::BroadcastOptions options(group);
  options.setOutput(static_cast<char*>(memory), bytes);
  options.setRoot(0);
  gloo::broadcast(options);
}

void run(int rank, int size, const std::string& address, int seconds) {
  struct stat shared;
  if (fstat(3, &shared) != 0) throw std::runtime_error("descriptor 3 is no memory to share");
  void* memory = mmap(nullptr, shared.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("the shared memory can't be mapped");

  auto group = std::make_shared<Group>(rank, size, address, std::chrono::seconds(seconds));
  std::cout << group->addresses() << std::endl;
  std::string line;
  if (!std::getline(std::cin, line)) return;
  group->connect(line);
  std::cout << "ok" << std::endl;

  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string operation;
    size_t count = 0;
    words >> operation >> count;
    const size_t width = operation == "sum64" ? sizeof(double) : operation == "sum32" ? sizeof(float) : 1;
    if (count > shared.st_size / width) throw std::runtime_error("more than the shared memory holds: " + line);
    if (operation == "sum32") sum<float>(group, memory, count);
    else if (operation == "sum64") sum<double>(group, memory, count);
    else if (operation == "broadcast") broadcast(group, memory, count);
    else throw std::runtime_error("what is not known: " + line);
    std::cout << "ok" << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 5) throw std::runtime_error("usage: collective RANK SIZE ADDRESS SECONDS");
    run(std::stoi(argv[1]), std::stoi(argv[2]), argv[3], std::stoi(argv[4]));
    return 0;
  } catch (const std::exception& e) {
    std::string why = e.what();
    for (char& c : why) {
      if (c == '\n') c = ' ';
    }
    std::cout << why << std::endl;
    return 1;
  }
}
