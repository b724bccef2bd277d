// Depthwise causal convolution with a few taps, on a CPU, free of torch.
#pragma once
#include "fftconv.h"

namespace dnasm::cpu {

// y[t] = bias + sum_j weight[j] x[t + j - (taps - 1)]; x is zero before the start.
struct ShortParams {
    int64_t batch, channels, length, taps;
    View x, y;                     // forward; backward reads x
    const float* weight;           // (channels, taps)
    const float* bias = nullptr;   // (channels) or null
    View dy, dx;                   // backward
    float* dweight = nullptr;      // (channels, taps), zero on entry
    float* dbias = nullptr;        // (channels), zero on entry
    Crew crew;
};

constexpr int64_t kMaxTaps = 64;

void short_forward(const ShortParams& params);
void short_backward(const ShortParams& params);

}  // namespace dnasm::cpu
