// One plan in one program, for sanitizers and planted faults: forward and backward on random rows, judged here.
//
//   driver LENGTH BATCH CHANNELS SEED...   exits 1 where a result is wrong; sanitizers and the emulator have their own codes
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/fftconv/launch.cu"
#include "../../csrc/fftconv/schedule.cuh"

using namespace dnasm;

namespace {

// One variant of each kernel: compiling all of them takes most of a test's time.
constexpr bool kFullRows = DNASM_FULL;
using Chosen = Plan<DNASM_LENGTH>;
size_t backward_bytes(const Params& p) { return BackwardScratch<Chosen>(p).bytes; }
size_t no_bytes(const Params&) { return 0; }
const Kernels kernels = {plan_spectrum_bytes<Chosen>, no_bytes, backward_bytes, launch_spectrum<Chosen>,
                         launch_forward<Chosen, kBfloat16, kFullRows, true>,
                         launch_backward<Chosen, kBfloat16, kFullRows, true>};

uint64_t state = 1;
float noise() {
  float sum = 0;
  for (int i = 0; i < 4; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sum += static_cast<float>(state >> 40) / (1 << 24) - 0.5f;
  }
  return sum * 1.7f;
}

struct Tensor {
  std::vector<uint16_t> data;
  int64_t d, n;
  Tensor(int64_t b, int64_t channels, int64_t length) : data(b * channels * length, 0x7fff), d(channels), n(length) {}
  Rows rows() { return {data.data(), d * n, n}; }
  double at(int64_t row, int64_t i) const { return bits_float(static_cast<uint32_t>(data[row * n + i]) << 16); }
  Tensor& fill() {
    for (auto& x : data) x = static_cast<uint16_t>(float_to_bfloat(noise()));
    return *this;
  }
};

bool judge(const char* what, double error, double size, double allowed) {
  const double relative = std::sqrt(error / size);
  const bool fine = relative <= allowed;  // false for NaN
  if (!fine) fprintf(stderr, "%s: relative error %.3e, allowed %.1e\n", what, relative, allowed);
  return fine;
}

bool run(int64_t n, int64_t b, int64_t d, uint64_t seed) {
  host::emulator.random = seed;
  state = 2 * seed + 1;
  Tensor u(b, d, n), in_gate(b, d, n), out_gate(b, d, n), dy(b, d, n);
  u.fill(), in_gate.fill(), out_gate.fill(), dy.fill();
  Tensor y(b, d, n), du(b, d, n), din(b, d, n), dout(b, d, n);
  std::vector<float> k(d * n), skip(d), dk(d * n, NAN), dskip(d, NAN);
  for (auto& x : k) x = noise();
  for (auto& x : skip) x = noise();

  Params p{};
  p.batch = b, p.channels = d, p.length = n, p.filter = k.data(), p.filter_length = n;
  p.dtype = kBfloat16;
  p.u = u.rows(), p.in_gate = in_gate.rows(), p.out_gate = out_gate.rows(), p.y = y.rows();
  p.dy = dy.rows(), p.du = du.rows(), p.din_gate = din.rows(), p.dout_gate = dout.rows();
  p.skip = skip.data(), p.dk = dk.data(), p.dskip = dskip.data();
  const size_t bytes[3] = {spectrum_bytes(p), forward_scratch_bytes(p), backward_scratch_bytes(p)};
  void* buffers[3];
  for (int i = 0; i < 3; ++i) {
    if (posix_memalign(&buffers[i], 256, bytes[i] + 1)) return false;
    memset(buffers[i], 0xff, bytes[i] + 1);
  }
  p.spectrum = buffers[0];
  const char* text = filter_spectrum(p);
  p.scratch = buffers[1];
  if (!text) text = forward(p);
  p.scratch = buffers[2];
  if (!text) text = backward(p);
  if (text) fprintf(stderr, "%s\n", text);

#if defined(__SANITIZE_THREAD__)
  const bool judged = false;  // only the order of accesses counts there
#else
  const bool judged = !text;
#endif
  double off[5] = {}, size[5] = {};
  for (int64_t c = 0; c < d && judged; ++c) {
    std::vector<double> dk_exact(n, 0.0);
    for (int64_t row = c; row < b * d; row += d) {
      for (int64_t t = 0; t < n; ++t) {
        double conv = 0, dx = 0;
        for (int64_t s = 0; s <= t; ++s) conv += k[c * n + s] * u.at(row, t - s) * in_gate.at(row, t - s);
        for (int64_t s = t; s < n; ++s) dx += k[c * n + s - t] * dy.at(row, s) * out_gate.at(row, s);
        const double x = u.at(row, t) * in_gate.at(row, t), g = dy.at(row, t) * out_gate.at(row, t);
        conv += skip[c] * x, dx += skip[c] * g;
        const double exact[4] = {conv * out_gate.at(row, t), dx * in_gate.at(row, t), dx * u.at(row, t), conv * dy.at(row, t)};
        const Tensor* found[4] = {&y, &du, &din, &dout};
        for (int i = 0; i < 4; ++i) off[i] += std::pow(found[i]->at(row, t) - exact[i], 2), size[i] += exact[i] * exact[i];
        for (int64_t s = 0; s <= t; ++s) dk_exact[s] += g * u.at(row, t - s) * in_gate.at(row, t - s);
      }
    }
    for (int64_t s = 0; s < n; ++s) off[4] += std::pow(dk[c * n + s] - dk_exact[s], 2), size[4] += dk_exact[s] * dk_exact[s];
  }
  const char* names[5] = {"y", "du", "din_gate", "dout_gate", "dk"};
  bool fine = !text;
  for (int i = 0; i < 5 && judged; ++i) fine = judge(names[i], off[i], size[i], i < 4 ? 2.2e-3 : 1.5e-3) && fine;
  for (void* buffer : buffers) free(buffer);
  return fine;
}

}  // namespace

int main(int argc, char** argv) {
  register_kernels(DNASM_LENGTH, kBfloat16, kernels);
  bool fine = argc > 4;
  for (int i = 4; i < argc; ++i) fine = run(atoll(argv[1]), atoll(argv[2]), atoll(argv[3]), atoll(argv[i])) && fine;
  return fine ? 0 : 1;
}
