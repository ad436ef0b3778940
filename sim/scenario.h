/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scenario: what a simulation shall be of, as one YAML file with --set on top. One table of keys
 * (scenario_keys.c) from which parsing, `shoal-sim example`, range checks and the settings in
 * reports are made. Every bad input ends in one line: place, key, what, what to do.
 *
 *   scenario_keys.c     the table            scenario_load.c   files, --set, what fits together
 *   scenario_value.c    values and text      scenario_show.c   the example, settings, list
 *   scenario_run.c      a world made of it, arrivals and faults put into it, run to the end
 *   scenario_faultless.c  the same without its faults, for checks
 */
#ifndef SHOAL_SIM_SCENARIO_H
#define SHOAL_SIM_SCENARIO_H

#include <stdio.h>

#include "image.h"
#include "report.h"
#include "world.h"

#define SCENARIO_TEXT_BYTES    256
#define SCENARIO_IMAGES_MAX    16
#define SCENARIO_FAULTS_MAX    256
#define SCENARIO_OUTAGES_MAX   64
#define SCENARIO_ZONES_MAX     64
#define SCENARIO_KEYS_MAX      128
#define SCENARIO_FILE_MAX      (1024 * 1024)
#define SCENARIO_TRACE_MAX     (64 * 1024 * 1024) /* bytes of a trace file */
#define SCENARIO_ARRIVALS_MAX  1000000            /* lines of a trace file */
#define SCENARIO_ERROR_BYTES   1024
#define SCENARIO_SETTING_BYTES 512

struct scenario_text {
    char text[SCENARIO_TEXT_BYTES]; /* "" is unset */
};

/* One image that nodes pull. */
struct scenario_image {
    unsigned line;   /* of the file; 0: --set or built in */
    uint32_t is_set; /* keys given: bit i is the i-th key of the list */
    struct scenario_text name;
    uint64_t layers[IMAGE_LAYERS_MAX]; /* bytes each */
    uint32_t layer_count;
    struct scenario_text manifest; /* file to take the layers from; resolved on load */
    uint64_t share_ppm;            /* of the nodes, drawn from the seed */
    uint64_t at_us;                /* after the node's arrival */
    enum transfer_copies copies;   /* of its registry; 0: as the scenario's */
};

enum scenario_fault_kind {
    FAULT_KILL = 1,  /* nodes vanish */
    FAULT_RESTART,   /* nodes vanish and come back; their clients pull again */
    FAULT_LEAVE,     /* nodes drain and go */
    FAULT_JOIN,      /* nodes start late and pull then */
    FAULT_FREEZE,    /* nodes stop for a while and go on */
    FAULT_SLOW,      /* NICs slower for a while */
    FAULT_PARTITION, /* nothing goes between two zones for a while */
    FAULT_OUTAGE,    /* of the origin */
    FAULT_CHURN,     /* nodes die and come back at a rate */
    FAULT_LOSS,      /* datagrams are lost for a while */
    FAULT_LIAR,      /* everything a node sends as a peer is wrong */
    FAULT_HOSTILE,   /* nodes act in another hostile way */
    FAULT_CPU,       /* processors slower for a while */
    FAULT_DISK,      /* disks slow or failing for a while */
    FAULT_ISOLATE,   /* nodes lose their links, which come back one by one */
};

enum scenario_outage {
    OUTAGE_REFUSE = 1, /* no connection */
    OUTAGE_SILENT,     /* takes requests and says nothing */
    OUTAGE_BUSY,       /* 429 with Retry-After */
    OUTAGE_CUT,        /* bodies on their way break off */
    OUTAGE_SLOW,       /* rate and first byte as given */
};

/* A count of nodes, or with this bit a share of all in ppm. */
#define SCENARIO_SHARE_BIT (1ULL << 63)
/* fault.node of no node in particular. */
#define SCENARIO_NO_NODE UINT64_MAX

struct scenario_fault {
    unsigned line;
    uint32_t is_set;
    uint64_t kind;  /* enum scenario_fault_kind */
    uint64_t at_us; /* as all times of a scenario: after the first arrival can be */
    uint64_t for_us;
    uint64_t nodes; /* how many, with SCENARIO_SHARE_BIT a share; drawn from the seed */
    uint64_t node;  /* this one; SCENARIO_NO_NODE: drawn */
    uint64_t zone, to_zone;
    bool one_way;
    uint64_t divisor_milli;
    uint64_t how; /* enum scenario_outage */
    uint64_t rate_bps, first_byte_us;
    uint64_t per_minute_ppm; /* churn: of the nodes */
    uint64_t down_us;
    bool keep_cache;
    uint64_t loss_ppm;
    uint64_t aim;     /* 0, or enum world_aim: chosen when it happens */
    uint64_t acts;    /* 1 + bit of enum world_hostile */
    uint64_t error;   /* enum world_disk */
    uint64_t wait_us; /* of each operation of the disk */
};

enum scenario_arrivals {
    ARRIVALS_CROWD = 1, /* all within a time */
    ARRIVALS_ROLLING,   /* batch by batch */
    ARRIVALS_POISSON,   /* at a mean rate */
    ARRIVALS_TRACE,     /* from a file */
};

#define SCENARIO_ALL_IMAGES UINT32_MAX
struct scenario_arrival {
    uint64_t at_us;
    uint32_t node;
    uint32_t image; /* index, or SCENARIO_ALL_IMAGES: those that the node pulls */
};

enum scenario_cache_mode {
    CACHE_DISK = 1,
    CACHE_MEMORY, /* the disk costs no time */
};

/* Limits on the result; 0: none. Thousandths but where said. */
struct scenario_checks {
    uint64_t p50, p99, p999, last; /* completion / bound */
    uint64_t origin_copies, cross_zone_copies, upload_skew;
    uint64_t p99_faultless, origin_faultless; /* against the same run without faults */
    uint64_t control_ppm;
    uint64_t last_us; /* completion of the last node */
    bool invariants;  /* of all cores, every simulated second: slow */
};

struct scenario {
    struct scenario_text name, description;
    struct world_config world;
    /* Zones as a list of node counts, or with SCENARIO_SHARE_BIT of shares in ppm. */
    uint64_t zone_nodes[SCENARIO_ZONES_MAX];
    uint32_t zone_list_count;              /* 0: a number of zones */
    uint64_t slow_ppm, slow_divisor_milli; /* nic.slow */
    uint32_t slow_count;                   /* values of nic.slow read */
    uint64_t cache_mode;                   /* enum scenario_cache_mode */
    uint64_t piece_bytes;                  /* 0: as agents cut blobs */
    uint64_t order;                        /* layers a client pulls at once; 0: all */
    struct scenario_image image;           /* of the key image */
    struct scenario_image images[SCENARIO_IMAGES_MAX];
    uint32_t image_count; /* after loading at least 1 */
    uint64_t arrivals;    /* enum scenario_arrivals */
    uint64_t within_us, batch_ppm, every_us, per_second_milli;
    uint64_t for_us; /* poisson: jobs on any node for so long; 0: each node arrives once */
    struct scenario_text trace_file;
    struct scenario_arrival *trace; /* owned; by time */
    uint32_t trace_count;
    struct scenario_fault faults[SCENARIO_FAULTS_MAX];
    uint32_t fault_count;
    struct scenario_fault outages[SCENARIO_OUTAGES_MAX]; /* kind FAULT_OUTAGE */
    uint32_t outage_count;
    struct scenario_checks checks;
    uint64_t settle_us; /* from the nodes' start to the first arrival */
    uint64_t warm_from; /* nodes; from so many on their views begin settled; 0: never */
    uint64_t limit_us;  /* what has not ended so long after the first arrival has failed */
    /* Called now and then while it is played, borrowing the world; NULL: nobody wants to know. The
     * run is the same with and without. */
    void (*watcher)(void *arg, const struct world *world);
    void *watcher_arg;
    uint32_t lines[SCENARIO_KEYS_MAX]; /* by key: line it was set on, UINT32_MAX: --set, 0: not */
};

/* One line for the operator, without newline. "" while there is no error. */
struct scenario_error {
    char text[SCENARIO_ERROR_BYTES];
};

/* ---- loading (scenario_load.c) ---- */

/* What the command line gives. All borrowed. */
struct scenario_options {
    const char *file;        /* a path, or the name of a shipped scenario; NULL: the defaults */
    const char *const *sets; /* "key=value" */
    size_t set_count;
};

/* Defaults of every key. Nothing owned. */
void scenario_defaults(struct scenario *out);
/*
 * Defaults, then the file, then --set in order; manifest and trace files are read; what does not
 * fit together is refused. 0; E_CONFIG with error->text saying "file:line: key: what, what to do";
 * E_NO_MEMORY. On error *out holds nothing to close.
 */
MUST_USE int scenario_load(const struct scenario_options *options, struct scenario *out,
                           struct scenario_error *error);
/* The same from text in memory (tests); `place` stands for the file in errors. */
MUST_USE int scenario_load_text(const char *place, const char *text, struct scenario *out,
                                struct scenario_error *error);
/* A fault, or an outage of the registry, of a line of the file with nothing but defaults. */
struct scenario_fault scenario_fault_default(unsigned line, bool outage);
/* Frees what loading allocated. */
void scenario_close(struct scenario *scenario);
/* Path of a scenario: the argument itself if such a file exists, else the shipped one of that name.
 * 0, or E_NOT_FOUND. */
MUST_USE int scenario_find_file(const char *name, char *out, size_t out_bytes);
/* Folder of the shipped scenarios: SHOAL_SCENARIOS, or beside the program's build, or installed. 0
 * or E_NOT_FOUND. */
MUST_USE int scenario_folder(char *out, size_t out_bytes);
/* Reads a whole file of at most `bytes_max`; *out is zero-terminated and the caller's to free(). 0,
 * E_NOT_FOUND, E_DENIED, E_IO, E_TOO_LARGE, E_NO_MEMORY. */
MUST_USE int scenario_read_file(const char *path, size_t bytes_max, char **out, size_t *out_bytes);
/* Sets error->text by format and returns E_CONFIG. */
int scenario_fail(struct scenario_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- the table (scenario_keys.c) ---- */

enum scenario_type {
    SCENARIO_BOOL = 1,
    SCENARIO_UINT,
    SCENARIO_SIZE,     /* bytes: "64MiB", "3GB" */
    SCENARIO_RATE,     /* bytes per second: "1Gbit/s", "300MB/s" */
    SCENARIO_TIME,     /* microseconds: "200us", "1.5s", "10min" */
    SCENARIO_NANOS,    /* nanoseconds: "2us" */
    SCENARIO_PER_GB,   /* ps per byte, which is ms per GB: "650ms" */
    SCENARIO_FRACTION, /* ppm: "3%", "0.03" */
    SCENARIO_PERCENT,  /* whole percent: "20%" */
    SCENARIO_MILLI,    /* thousandths: "1.15" */
    SCENARIO_ENUM,     /* one of choices, counted from `min` */
    SCENARIO_NODES,    /* count or share: "3", "5%" */
    SCENARIO_TEXT,     /* struct scenario_text */
    SCENARIO_PATH,     /* the same, relative to the scenario's folder */
    SCENARIO_SIZES,    /* list of sizes: scenario_image.layers */
    SCENARIO_ZONES,    /* a number of zones, or a list of node counts or shares */
    SCENARIO_SLOW,     /* [fraction, divisor] */
};

/* Lists of maps whose elements have keys of their own. */
enum scenario_list {
    SCENARIO_LIST_NONE = 0, /* a key of the scenario itself */
    SCENARIO_LIST_IMAGES,
    SCENARIO_LIST_FAULTS,
    SCENARIO_LIST_OUTAGES,
};

struct scenario_key {
    const char *name; /* dotted */
    enum scenario_type type;
    enum scenario_list list; /* offset is then in the list's element */
    size_t offset;           /* in struct scenario */
    size_t bytes;            /* of the value: 1, 4 or 8 for numbers */
    uint64_t min, max;       /* in the value's own unit; `word` and 0 with zero_ok beside */
    bool zero_ok;
    const char *word; /* a word allowed beside numbers ("auto"), NULL: none */
    uint64_t word_value;
    const char *const *choices; /* ENUM: NULL-terminated */
    const char *help;
};

/* The table, in the order in which the example shows it. */
const struct scenario_key *scenario_keys(size_t *count);
/* Index of a key by exact name; count if there is none. */
size_t scenario_key_find(const char *name);

/* ---- values (scenario_value.c) ---- */

/* Parses one scalar into its place in `base` (struct scenario, or the list's element); lists
 * append. 0 or E_CONFIG with *base unchanged. */
MUST_USE int scenario_value_parse(const struct scenario_key *key, const char *text, void *base);
/* One node count or share of zones given as a list. 0 or E_CONFIG. */
MUST_USE int scenario_zone_append(const char *text, struct scenario *scenario);
/* The value as text; lists as "[a, b]"; `out` is returned. */
const char *scenario_value_text(const struct scenario_key *key, const void *base, char *out,
                                size_t out_bytes);
/* The number at the key's place. The key is of a number's type. */
uint64_t scenario_value_number(const struct scenario_key *key, const void *base);
/* A number as this key's text ("2.5Gbit/s"); `out` is returned. */
const char *scenario_number_text(const struct scenario_key *key, uint64_t value, char *out,
                                 size_t out_bytes);
/* Allowed values for people; `out` is returned. */
#define SCENARIO_RANGE_BYTES 256
const char *scenario_key_range(const struct scenario_key *key, char out[SCENARIO_RANGE_BYTES]);
/* Forgets the elements of a list key, before new ones are appended. */
void scenario_list_reset(const struct scenario_key *key, void *base);
/* Is the value a list? */
bool scenario_key_is_list(const struct scenario_key *key);
/* Can a sweep bisect it? */
bool scenario_key_is_number(const struct scenario_key *key);

/* ---- showing (scenario_show.c) ---- */

/* A scenario with every default written out and explained; loading it gives the defaults. */
void scenario_example(FILE *to);
/* All values of a scenario as key and text, for reports. */
struct scenario_settings {
    struct report_setting rows[SCENARIO_KEYS_MAX];
    char text[SCENARIO_KEYS_MAX][SCENARIO_SETTING_BYTES];
    size_t count;
};
void scenario_settings_of(const struct scenario *scenario, struct scenario_settings *out);
/* The table of shipped scenarios: name, nodes, image, description. 0, or E_NOT_FOUND if there is no
 * folder of them. */
MUST_USE int scenario_list(FILE *to);

/* ---- running (scenario_run.c) ---- */

/* What came of it. */
struct scenario_result {
    struct report report;
    uint64_t pulls;         /* of clients, retries not counted */
    uint64_t unexplained;   /* that failed though their node lived */
    uint64_t unfinished;    /* that had not ended at the limit */
    uint64_t pulled_bytes;  /* of pulls that ended well */
    uint64_t arrived_bytes; /* over the network, from the origin and from peers */
};

/* Share of the pulled bytes that the nodes' own caches gave. */
double scenario_hit_ratio(const struct scenario_result *result);
/* Builds the world and plays the scenario to its end. *world is the caller's to free, also for
 * looking at afterwards. 0 or E_NO_MEMORY. */
MUST_USE int scenario_run(const struct scenario *scenario, struct world **world,
                          struct scenario_result *out);
/* Nodes of all images' layers, bytes of one node's full pull. */
uint64_t scenario_image_bytes(const struct scenario_image *image);
/* Is a check set that needs the same run without faults? */
bool scenario_wants_faultless(const struct scenario *scenario);
/* Runs that, too, and fills result->report.faultless; `world` is as scenario_run left it. 0 or
 * E_NO_MEMORY. */
MUST_USE int scenario_compare(const struct scenario *scenario, const struct world *world,
                              struct scenario_result *result);
/* Holds the result against scenario.checks. Returns how many are broken, each a line on `to`
 * ("check: ratio.p99 is 1.310, limit 1.150"); `to` may be NULL. */
unsigned scenario_check_result(const struct scenario *scenario,
                               const struct scenario_result *result, FILE *to);

#endif
