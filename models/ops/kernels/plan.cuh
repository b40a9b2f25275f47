// What the passes of local attention work on, and how one pass divides its work: sizes fixed when
// compiling.
//
// A warp holds GROUPS rows of the tile; LANES lanes share one and have different channels. Other
// warps have other rows of the tile (strips), or every SPLITS-th row of cells (splits), whose sums
// are joined at the end in a fixed order.
//
// The launcher defines KEY_CHANNELS, VALUE_CHANNELS, WINDOW, and the types KEY and VALUE (float,
// Half, Bfloat). Channels fill 16 bytes: multiples of 4 in float, of 8 in half types. All
// arithmetic is in float, but for the products of weights and values in TENSOR_READ.
#pragma once

#include "warp.cuh"

constexpr int MAX_FRAMES = 16;

// All maps are (B, H, W, channels), contiguous. A pass reads what it needs.
struct Problem {
    const KEY *query;
    const VALUE *gradient;                  // of the read
    const float *constant;                  // one number, or null
    float2 *softmax;  // (B, H, W): largest logit, 1 / sum of exponentials. READ writes it
    float *delta;                           // (B, H, W). OF_QUERY writes it
    const KEY *keys[MAX_FRAMES];
    const VALUE *values[MAX_FRAMES];
    void *results[MAX_FRAMES];              // of OF_KEY and OF_VALUE one per frame, else one
    int height, width, frames, unused;
};

enum { READ, OF_QUERY, OF_KEY, OF_VALUE, TENSOR_READ };

// Values of so many channels that READ is bound by its sums: tensor cores can read them, too. With
// fewer, as ERFNet's 64, it is bound by latency and by its scores, and sums stay in float whatever
// the type.
#define WIDE (VALUE_CHANNELS > 128)
constexpr int LANES = WIDE ? 32 : VALUE_CHANNELS > 64 ? 16 : 8;
constexpr int GROUPS = 32 / LANES;
constexpr int PARTS = LANES / 8;  // of the channels of a score: 8 lanes have all cells of a visit
constexpr int SLICE = 16 * PARTS;  // channels that scores take from shared memory at a time
constexpr int RADIUS = WINDOW / 2;
constexpr int SPAN = 8 + WINDOW - 1;        // cells of one row that 8 pixels see
constexpr int COLUMNS = SPAN < 32 ? SPAN : 32;      // of them per visit
// Cells of a visit per lane; there is room for all of them
constexpr int EIGHTS = (COLUMNS + 7) / 8;
constexpr int VISITS = (SPAN + 31) / 32;    // per row of cells
constexpr int KEPT = 4 / PARTS;  // cells whose scores a lane keeps once the parts are summed
constexpr float LOWEST = -3.402823466e38f;  // finite: the exponential of LOWEST - LOWEST is no NaN

// Shared memory of a multiprocessor, in bytes; 100 KB for compute capability 8.6, 8.9 and 12.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
constexpr int MULTIPROCESSOR = 164 * 1024;
#elif __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
constexpr int MULTIPROCESSOR = 228 * 1024;
#else
constexpr int MULTIPROCESSOR = 100 * 1024;
#endif

__device__ constexpr int quotient(int a, int b) { return (a + b - 1) / b; }
__device__ constexpr int larger(int a, int b) { return a > b ? a : b; }
__device__ constexpr int smaller(int a, int b) { return a < b ? a : b; }

// Bytes of one pixel in shared memory: an odd number of 16, so that 8 lanes reading 8 pixels meet
// no common bank.
template <class T> __device__ constexpr int pitch(int channels)
{
    return (channels * int(sizeof(T)) / 16 | 1) * 16;
}
// Bytes of 8 pixels: groups of lanes that read different rows meet no common bank either.
__device__ constexpr int row_pitch(int pitch) { return 8 * pitch + 16; }

template <int PASS> struct Plan {
    static constexpr bool BY_QUERY = PASS == READ || PASS == OF_QUERY;
    static constexpr bool TWO = PASS == OF_QUERY || PASS == OF_KEY;         // scores per pair
    static constexpr int STRIPS = LANES == 8 ? 1 : LANES == 16 ? 4 : 8;
    static constexpr int SPLITS = LANES == 8 ? (TWO ? 4 : 8) : LANES == 16 ? 2 : 1;
    static constexpr int HEIGHT = STRIPS * GROUPS;                          // of the tile
    static constexpr int PIXELS = 8 * HEIGHT;
    static constexpr int WARPS = STRIPS * SPLITS;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int AT_ONCE = TWO ? 4 : 2;  // cells of a lane, as registers allow
    static constexpr int RESIDENT = TWO ? 4 * 16 : 8 * 16;  // channels of the tile kept at most

    static constexpr int SETS = PASS == OF_QUERY ? 2 : 1;                   // of weights
    static constexpr int CHANNELS = TWO ? KEY_CHANNELS : VALUE_CHANNELS;    // that are accumulated
    // Of 4 channels, per lane
    static constexpr int VECTORS = smaller(2, quotient(SETS * CHANNELS, 4 * LANES));
    static constexpr int BLOCK = 4 * LANES * VECTORS / SETS;  // channels per block of threads
    static constexpr int BLOCKS = quotient(CHANNELS, BLOCK);

    // One kind of score: products of keys and queries, or of values and gradients.
    template <int KIND, class T, int C> struct Score {
        using Type = T;
        static constexpr int CHANNELS = C;
        static constexpr int SLICES = quotient(C, SLICE);
        // The tile, in shared memory
        static constexpr bool STAYS = SLICES * SLICE <= larger(RESIDENT, SLICE);
        static constexpr int PITCH = pitch<T>(STAYS ? SLICES * SLICE : SLICE);
        static constexpr int ROW = row_pitch(PITCH);
    };
    using Keys = Score<0, KEY, KEY_CHANNELS>;
    using Values = Score<1, VALUE, VALUE_CHANNELS>;
    static constexpr int STAGES = Keys::SLICES + (TWO ? Values::SLICES : 0);        // per visit

    // Shared memory, in bytes: the tile, of which slices come anew (two buffers) where it has many
    // channels; cells (two buffers); weights. At the end, sums of splits.
    static constexpr int SLICES =
        HEIGHT * row_pitch(larger(pitch<KEY>(SLICE), TWO ? pitch<VALUE>(SLICE) : 0));
    static constexpr int CELLS =
        SPLITS * 8 * EIGHTS * larger(pitch<KEY>(SLICE), TWO ? pitch<VALUE>(SLICE) : 0);
    static constexpr int GROUP = 4 * (2 * COLUMNS + 1);  // weights of a group, in floats
    static constexpr int WEIGHTS = 4 * WARPS * SETS * GROUPS * GROUP;
    static constexpr int AT_VALUES = Keys::STAYS ? HEIGHT * Keys::ROW : 0;
    static constexpr int AT_SLICES = AT_VALUES + (TWO && Values::STAYS ? HEIGHT * Values::ROW : 0);
    static constexpr int AT_CELLS =
        AT_SLICES + (Keys::STAYS && (!TWO || Values::STAYS) ? 0 : 2 * SLICES);
    static constexpr int AT_WEIGHTS = AT_CELLS + 2 * CELLS;
    static constexpr int SUMS = SPLITS / 2 * STRIPS * 8 * VECTORS * 32 * 16;
    static constexpr int SHARED = larger(AT_WEIGHTS + WEIGHTS, SUMS);
    static_assert(SHARED <= 99 * 1024,
                  "what the smallest of the GPUs that this is built for gives a block");
    // Blocks, at least
    static constexpr int RESIDENTS = TWO ? 1 : smaller(2, MULTIPROCESSOR / (SHARED + 1024));
};
