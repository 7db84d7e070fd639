/* What takes the most time of a training step, forward and backward: 3 x 3 convolutions (convolutions.inc, for bfloat16
 * convolutions_bfloat16.inc), 2 x 2 max-pooling (pooling.inc), and what follows a convolution (blocks.inc) in one go over
 * the images: an activation that is linear on both sides of zero (PReLU and its kin), channel dropout, batch
 * normalization, and that pooling.
 *
 * The functions are compiled for any processor, for two levels of x86, and for each type of elements, but for bfloat16
 * convolutions, which take instructions of their own. Channels are last in memory, and their number is a multiple of 16,
 * the most LANES; for a convolution that of 8 will do, but for the outputs of convolution_backward, which takes one or
 * three inputs as well.
 */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define X86_LEVELS
#include <immintrin.h>
#endif
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* A sum has this many parts, whatever the number of threads, so that it always comes to the same bits. */
#define PARTS 64
/* The first line of a part. */
#define START(part, lines) ((part) * (lines) / PARTS)
/* Fewer elements are not worth a second thread. */
#define SERIAL 32768

typedef float float32;
typedef uint16_t bfloat16;

/* What the functions read and write; bindings.py has the same. Sizes of arrays are in brackets. */
struct block {
    int64_t images, height, width, channels;
    int64_t side; /* 2 pools 2 x 2 pixels into one, and takes even heights and widths; 1 pools none */
    float momentum, epsilon;
    const void *inputs;           /* elements [images, height, width, channels] */
    const float *slope;           /* of the activation below zero [1] */
    const float *kept;            /* zero where dropout has struck, else 1 / (1 - p) [images, channels] */
    const float *weight, *bias;   /* of batch normalization [channels] */
    float *running_mean, *running_variance, *means, *inverses; /* the last of deviations [channels] */
    void *outputs;                /* elements [images, height / side, width / side, channels] */
    uint8_t *places;              /* which of the pooled each output was [as outputs] */
    const void *gradients;        /* of the outputs */
    void *input_gradients;
    float *slope_gradient, *weight_gradients, *bias_gradients;
    float *scratch;               /* [scratch_size] */
};

/* Of a convolution's weights and products, as many outputs lie together in a panel. */
#define PANEL 16
/* The points to which a tile of 6 x 6 pixels is transformed; one of them is the sum of a tile of outputs' gradients. */
#define POINTS 36
#define SUM_POINT 7
/* Tiles that are done at a time by one thread, and by all: few, so that they stay near the processor. */
#define OUTPUT_TILES 24
#define WEIGHT_TILES 96
/* Floats between one point's values and the next one's, which else would meet in the same lines of the cache. */
#define GAP 16

/* What a convolution reads and writes; bindings.py has the same. */
struct convolution {
    int64_t images, height, width, inputs, outputs; /* the last are numbers of channels */
    const void *input;                              /* elements [images, height, width, inputs] */
    const float *weight, *bias;                     /* [3, 3, inputs, outputs], [outputs] or NULL for none */
    void *output;                                   /* elements [images, height, width, outputs] */
    const void *output_gradient;                    /* as output */
    float *weight_gradient, *bias_gradient;         /* as weight and bias, of which none is NULL */
    float *scratch;                                 /* [convolution_scratch] */
};

/* A tile of outputs, or less of it at the lower and right edge, from (top, left) on. */
struct tile {
    int64_t image, top, left;
};

/* The channels that so many take up in panels. */
static inline int64_t in_panels(int64_t channels, int64_t panel)
{
    return (channels + panel - 1) / panel * panel;
}

/* How many tiles of `side` x `side` outputs cover the images. */
static inline int64_t tiles_of(const struct convolution *of, int64_t side)
{
    return of->images * ((of->height + side - 1) / side) * ((of->width + side - 1) / side);
}

static inline struct tile tile_at(const struct convolution *of, int64_t number, int64_t side)
{
    int64_t across = (of->width + side - 1) / side, each = (of->height + side - 1) / side * across;
    return (struct tile){number / each, number % each / across * side, number % across * side};
}

/* The threads that do so many pieces of work. */
static inline int64_t threads_for(int64_t pieces)
{
    return pieces < omp_get_max_threads() ? pieces : omp_get_max_threads();
}

/* NAME(f) is f_avx2_float32 and so on. */
#define PASTED(name, level, element) name##_##level##_##element
#define EXPANDED(name, level, element) PASTED(name, level, element)
#define NAME(name) EXPANDED(name, LEVEL, ELEMENT)
#define INLINE static inline __attribute__((always_inline))

#define LEVEL generic
#define LANES 4
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LEVEL
#undef LANES

#ifdef X86_LEVELS

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LEVEL avx2
#define LANES 8
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define LEVEL avx512
#define LANES 16
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LANES
#pragma GCC pop_options

#if __GNUC__ >= 10
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#define ELEMENT bfloat16
#include "convolutions_bfloat16.inc"
#pragma GCC pop_options
#endif
#undef LEVEL
#endif

/* Changes with what the functions take or come to: bindings.py calls no other version than its own. */
int version(void)
{
    return 5;
}

/* Another one may round otherwise. */
const char *compiler(void)
{
#ifdef __clang__
    return __VERSION__;
#else
    return "gcc " __VERSION__;
#endif
}

int64_t block_size(void)
{
    return sizeof(struct block);
}

int64_t convolution_size(void)
{
    return sizeof(struct convolution);
}

/* Of a function of the OpenMP library whose threads these functions use. */
void *openmp_address(void)
{
    return (void *)omp_get_max_threads;
}

/* How many floats a block's `scratch` holds. */
int64_t block_scratch(int64_t channels)
{
    return (2 * PARTS + 3) * channels;
}
