// The kernels for few taps in one program, for sanitizers and planted faults: random rows, judged here in float64.
//
//   short_driver SEED...   exits 1 where a result is wrong; sanitizers and the emulator have their own codes
#include <cstdlib>

#include "../../csrc/short/direct_gradient.cuh"
#include "../../csrc/short/dispatch.cu"
#include "../../csrc/short/shortconv.cuh"
#include "random_rows.h"

using namespace dnasm;

namespace {

bool direct(bool even, int64_t b, int64_t d, int64_t n, int64_t taps) {
  Convolution all(b, d, n, taps);
  Params& p = all.p;
  const char* text = direct_forward(p);
  std::vector<float> scratch(direct_scratch_bytes(p) / 4 + 1, NAN);
  p.scratch = scratch.data();
  if (!text) text = direct_backward(p);
  if (text || even != even_rows(p)) return fprintf(stderr, "%s\n", text ? text : "not the rows that were meant"), false;
  return all.right();
}

bool gated_short(int64_t b, int64_t d, int64_t n, int64_t taps) {
  Tensor x(b, 3 * d, n), dx(b, 3 * d, n), y(b, d, n), mixed(b, d, n), dy(b, d, n), dmixed(b, d, n);
  x.fill(), dy.fill(), dmixed.fill();
  const std::vector<float> w = noise(3 * d * taps), bias = noise(3 * d);
  std::vector<float> dw(w.size(), NAN), dbias(bias.size(), NAN);
  ShortParams p{};
  p.batch = b, p.channels = d, p.length = n, p.streams = 3, p.taps = static_cast<int>(taps), p.ahead = 1, p.dtype = kBfloat16;
  p.x = x.columns(), p.weight = w.data(), p.bias = bias.data(), p.y = y.rows(), p.mixed = mixed.rows();
  p.dy = dy.rows(), p.dmixed = dmixed.rows(), p.dx = dx.columns(), p.dweight = dw.data(), p.dbias = dbias.data();
  const char* text = short_forward(p);
  std::vector<float> scratch(short_scratch_bytes(p) / 4 + 1, NAN);
  p.scratch = scratch.data();
  if (!text) text = short_backward(p);
  if (text) return fprintf(stderr, "%s\n", text), false;
  const int64_t past = taps - 2;
  const auto conv = [&](int64_t i, int64_t c, int64_t t) {
    double sum = bias[c];
    for (int64_t j = 0; j < taps; ++j) sum += w[c * taps + j] * x.column(i, c, t + j - past);
    return sum;
  };
  const auto gradient = [&](int64_t i, int64_t s, int64_t c, int64_t t) {  // of the convolution of stream s
    if (t < 0 || t >= n) return 0.0;
    return s == 0 ? dy.row(i * d + c, t) : dmixed.row(i * d + c, t) * conv(i, (3 - s) * d + c, t);
  };
  Judge judges[] = {{"short y", 2.3e-3}, {"mixed", 2.3e-3}, {"dx", 2.3e-3}, {"dweight", 1e-3}, {"dbias", 5e-3}};
  for (int64_t s = 0; s < 3 && kJudged; ++s)
    for (int64_t c = 0; c < d; ++c) {
      std::vector<double> sums(taps + 1, 0.0);
      const int64_t row = s * d + c;
      for (int64_t i = 0; i < b; ++i)
        for (int64_t t = 0; t < n; ++t) {
          double back = 0;
          for (int64_t j = 0; j < taps; ++j) {
            back += w[row * taps + j] * gradient(i, s, c, t - j + past);
            sums[j] += gradient(i, s, c, t) * x.column(i, row, t + j - past);
          }
          sums[taps] += gradient(i, s, c, t);
          judges[2].see(dx.column(i, row, t), back);
          if (s == 0) judges[0].see(y.row(i * d + c, t), conv(i, c, t));
          if (s == 1) judges[1].see(mixed.row(i * d + c, t), conv(i, d + c, t) * conv(i, 2 * d + c, t));
        }
      for (int64_t j = 0; j < taps; ++j) judges[3].see(dw[row * taps + j], sums[j]);
      judges[4].see(dbias[row], sums[taps]);
    }
  return all_fine(judges);
}

template <bool kDirect>
bool run(uint64_t number) {
  seed(number);
  if (!kDirect) return gated_short(2, 35, 90, 3);
  // Three rows of one tile, of four; two units a row; taps that reach past the tile; rows that start anywhere.
  return direct(true, 3, 1, 200, 40) & direct(true, 1, 1, 1032, 20) & direct(false, 2, 1, 301, 300);
}

}  // namespace

int main(int argc, char** argv) {
  ShortKernels kernels{};
#if DNASM_DIRECT
  kernels.forward = launch_short_forward<kBfloat16, 1, false, 3>;
  kernels.direct_scratch_bytes = direct_scratch;
  kernels.direct_forward = launch_direct_forward<kBfloat16>, kernels.direct_backward = launch_direct_backward<kBfloat16>;
#else
  kernels.scratch_bytes = backward_scratch;
  kernels.forward = launch_short_forward<kBfloat16, 3, true, 3>, kernels.backward = launch_short_backward<kBfloat16, 3, true, 3>;
#endif
  register_short(kBfloat16, kernels);
  bool fine = argc > 1;
  for (int i = 1; i < argc; ++i) fine = run<DNASM_DIRECT>(atoll(argv[i])) && fine;
  return fine ? 0 : 1;
}
