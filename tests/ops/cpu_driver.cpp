// The CPU kernels without torch, for the sanitizers: every kind of call at small sizes and one that threads share.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "cpu/fftconv.h"
#include "cpu/shortconv.h"
#include "cpu/vector.h"

using namespace dnasm::cpu;

namespace {

struct Fresh final : Threads {
    void run(int64_t workers, void (*body)(int64_t, void*), void* context) override {
        std::vector<std::thread> threads;
        for (int64_t i = 0; i < workers; ++i) threads.emplace_back(body, i, context);
        for (std::thread& thread : threads) thread.join();
    }
};

constexpr int64_t kBatch = 2, kChannels = 3;
using Floats = std::vector<float>;

dnasm::Rows rows(Floats& data, int64_t length) { return {data.data(), kChannels * length, length}; }

dnasm::Strided columns(Floats& data, int64_t length) {  // (batch, length, channels), seen as (batch, channels, length)
    return {data.data(), kChannels * length, 1, kChannels};
}

void long_convolution(int64_t plan, std::vector<int> radices, int64_t length, int64_t taps, bool bidirectional) {
    const size_t size = size_t(kBatch * kChannels * length);
    Floats u(size, 1), gate(size, 2), dy(size, 1), y(size), du(size), din(size), dout(size);
    Floats k(size_t(kChannels * 2 * taps), 0.5f), dk(k.size()), skip(kChannels, 1), dskip(kChannels);
    Fresh threads;
    Params p{};
    p.batch = kBatch;
    p.channels = kChannels;
    p.filter = k.data();
    p.filter_length = taps;
    p.bidirectional = bidirectional;
    p.u = rows(u, length);
    p.in_gate = p.out_gate = rows(gate, length);
    p.y = rows(y, length);
    p.dy = rows(dy, length);
    p.du = rows(du, length);
    p.din_gate = rows(din, length);
    p.dout_gate = rows(dout, length);
    p.skip = skip.data();
    p.dk = dk.data();
    p.dskip = dskip.data();
    p.groups = {{plan, std::move(radices), {{0, length / 3}, {length / 3, length}}}};
    p.crew = {&threads, 3};
    forward(p);
    if (!bidirectional && std::fabs(y[0] - 2 * 2 * (0.5f + 1)) > 1e-3f) std::exit(1);  // gate * gate * (k[0] + skip)
    backward(p);
    p.groups[0].pieces = {{0, length}};
    std::vector<Cvec> values(spectrum_bytes(p) / sizeof(Cvec));
    p.spectrum = values.data();
    filter_spectrum(p);
}

void short_convolution(int64_t length, int64_t streams) {
    const int64_t channels = kChannels / streams;
    const size_t size = size_t(kBatch * streams * channels * length);
    Floats x(size, 1), y(size), mixed(size), dx(size), weight(size_t(streams * channels * 3), 1), bias(weight.size() / 3, 1);
    Floats dweight(weight.size()), dbias(bias.size());
    Fresh threads;
    ShortParams p{};
    p.batch = kBatch;
    p.channels = channels;
    p.length = length;
    p.taps = 3;
    p.streams = int(streams);
    p.x = columns(x, length);
    p.y = p.dy = rows(y, length);
    p.mixed = p.dmixed = rows(mixed, length);
    p.dx = columns(dx, length);
    p.weight = weight.data();
    p.bias = bias.data();
    p.dweight = dweight.data();
    p.dbias = dbias.data();
    p.crew = {&threads, 3};
    short_forward(p);
    const float right = float((length < 3 ? length : 3) + 1);
    if (y[size_t(length) - 1] != right || (streams == 3 && mixed[size_t(length) - 1] != right * right)) std::exit(1);
    short_backward(p);
}

}  // namespace

int main() {
    for (bool bidirectional : {false, true}) {
        long_convolution(64, {1, 8, 8}, 27, 40, bidirectional);
        long_convolution(640, {2, 5, 8, 8}, 603, 301, bidirectional);
        long_convolution(192, {3, 8, 8}, bidirectional ? 192 : 1000, 100, bidirectional);
        long_convolution(1 << 18, {8, 8, 4, 4, 4, 8, 8}, (1 << 18) - 37, 1000, bidirectional);
    }
    for (int64_t length : {1, 2, 1024, 2500})
        for (int64_t streams : {1, 3}) short_convolution(length, streams);
    std::puts("done");
}
