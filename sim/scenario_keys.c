/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a scenario's keys and their defaults; see scenario.h. */
#include <stddef.h>
#include <string.h>

#include "limits.h"
#include "scenario.h"

#define MIB   (1024ULL * 1024)
#define MS    1000ULL
#define S     1000000ULL
#define HOUR  (3600 * S)
#define PPM   1000000ULL
#define GBIT  125000000ULL
#define TBIT  (1000 * GBIT)
#define KBIT8 1000ULL /* 8 kbit/s: nothing slower makes sense, and sums stay within bounds */

#define SELF(field)                                                                                \
    .offset = offsetof(struct scenario, field), .bytes = sizeof((struct scenario *)0)->field
#define WORLD(field) SELF(world.field)
#define IMAGE(field)                                                                               \
    .list = SCENARIO_LIST_IMAGES, .offset = offsetof(struct scenario_image, field),                \
    .bytes = sizeof((struct scenario_image *)0)->field
#define FAULT(field)                                                                               \
    .list = SCENARIO_LIST_FAULTS, .offset = offsetof(struct scenario_fault, field),                \
    .bytes = sizeof((struct scenario_fault *)0)->field
#define OUTAGE(field)                                                                              \
    .list = SCENARIO_LIST_OUTAGES, .offset = offsetof(struct scenario_fault, field),               \
    .bytes = sizeof((struct scenario_fault *)0)->field
#define RANGE(low, high) .min = (low), .max = (high)
#define OR_ZERO          .zero_ok = true
/* 0 or a rate that a link can have. */
#define ANY_RATE RANGE(KBIT8, 4 * TBIT), OR_ZERO

static const char *const copies_choices[] = {"mesh", "zone", NULL};
static const char *const image_copies_choices[] = {"default", "mesh", "zone", NULL};
static const char *const cache_choices[] = {"disk", "memory", NULL};
static const char *const arrivals_choices[] = {"crowd", "rolling", "poisson", "trace", NULL};
static const char *const log_choices[] = {"none", "error", "warn", "info", "debug", "trace", NULL};
static const char *const fault_choices[] = {
    "kill",  "restart", "leave", "join",    "freeze", "slow", "partition", "outage",
    "churn", "loss",    "liar",  "hostile", "cpu",    "disk", "isolate",   NULL};
static const char *const aim_choices[] = {"any", "keepers", "lessees", NULL};
static const char *const acts_choices[] = {"lies",       "drips",      "stalls",  "claimsAll",
                                           "claimsNone", "claimsFlip", "garbles", NULL};
static const char *const error_choices[] = {"none", "full", "write", "read", NULL};
static const char *const outage_choices[] = {"refuse", "silent", "busy", "cut", "slow", NULL};

static const struct scenario_key keys[] = {
    {"name", SCENARIO_TEXT, SELF(name), RANGE(0, 63), .help = "name in reports; empty: the file's"},
    {"description", SCENARIO_TEXT, SELF(description), RANGE(0, SCENARIO_TEXT_BYTES - 1),
     .help = "a sentence for people"},
    {"seed", SCENARIO_UINT, WORLD(seed), RANGE(0, UINT64_MAX),
     .help = "of everything random; the same seed gives the same run"},

    {"nodes", SCENARIO_UINT, WORLD(node_count), RANGE(1, WORLD_NODES_MAX), .help = "nodes"},
    {"zones", SCENARIO_ZONES, WORLD(zone_count), RANGE(1, SCENARIO_ZONES_MAX),
     .help = "zones, nodes dealt in turn; or a list of node counts, which also sets nodes, or of "
             "shares, as [50%, 30%, 20%]"},
    {"regions", SCENARIO_UINT, WORLD(region_count), RANGE(1, SCENARIO_ZONES_MAX), OR_ZERO,
     .help = "regions, zones dealt in turn; 0: one"},
    {"vswitches", SCENARIO_UINT, WORLD(vswitch_count), RANGE(1, 4096),
     .help = "vSwitches per zone"},
    {"copies", SCENARIO_ENUM, WORLD(mesh.transfer.copies), RANGE(TRANSFER_COPIES_MESH, 0),
     .choices = copies_choices,
     .help = "a piece leaves the origin once for the mesh, or once per zone"},

    {"nic.up", SCENARIO_RATE, WORLD(nic_bps), RANGE(KBIT8, 4 * TBIT),
     .help = "rate of each node's network card, up"},
    {"nic.down", SCENARIO_RATE, WORLD(nic_down_bps), ANY_RATE, .help = "and down; 0: as up"},
    {"nic.slow", SCENARIO_SLOW, SELF(slow_ppm), RANGE(0, 0),
     .help = "[fraction of the nodes, divisor]: so many have a slower card"},

    {"links.vswitch", SCENARIO_RATE, WORLD(vswitch_bps), ANY_RATE,
     .help = "a vSwitch's uplink each way; 0: no limit"},
    {"links.zone", SCENARIO_RATE, WORLD(zone_bps), ANY_RATE,
     .help = "a zone's border each way; 0: no limit"},
    {"links.cross", SCENARIO_RATE, WORLD(cross_bps), ANY_RATE,
     .help = "all zone borders together; 0: no limit"},
    {"links.originOverBorder", SCENARIO_BOOL, WORLD(origin_over_border), RANGE(0, 1),
     .help = "the origin's bytes take the zone's border, too"},

    {"latency.vswitch", SCENARIO_TIME, WORLD(latency_vswitch_us), RANGE(1, 10 * S), OR_ZERO,
     .help = "one way, inside a vSwitch; 0: as inside a zone"},
    {"latency.zone", SCENARIO_TIME, WORLD(latency_zone_us), RANGE(1, 10 * S),
     .help = "inside a zone"},
    {"latency.cross", SCENARIO_TIME, WORLD(latency_cross_us), RANGE(1, 10 * S),
     .help = "between zones of a region"},
    {"latency.region", SCENARIO_TIME, WORLD(latency_region_us), RANGE(1, 10 * S), OR_ZERO,
     .help = "between regions; 0: as between zones"},
    {"latency.jitter", SCENARIO_PERCENT, WORLD(jitter_percent), RANGE(0, 1000),
     .help = "of the latency, uniform on top"},
    {"latency.queue", SCENARIO_TIME, WORLD(queue_us), RANGE(0, 10 * S),
     .help = "on top for each full network card on the way: the mean of its queue"},
    {"loss", SCENARIO_FRACTION, WORLD(loss_ppm), RANGE(0, PPM / 2), .help = "of all datagrams"},
    {"duplicate", SCENARIO_FRACTION, WORLD(duplicate_ppm), RANGE(0, PPM / 2),
     .help = "of all datagrams"},
    {"reorder", SCENARIO_FRACTION, WORLD(reorder_ppm), RANGE(0, PPM / 2),
     .help = "of all datagrams: held back, so that others overtake them"},
    {"reorderBy", SCENARIO_TIME, WORLD(reorder_us), RANGE(1, 10 * S), OR_ZERO,
     .help = "at most so long; 0: ten times the latency"},

    {"origin.rate", SCENARIO_RATE, WORLD(origin_bps), RANGE(KBIT8, 4 * TBIT),
     .help = "the registry's, in total"},
    {"origin.connection", SCENARIO_RATE, WORLD(origin_conn_bps), ANY_RATE,
     .help = "of one connection; 0: no limit"},
    {"origin.firstByte", SCENARIO_TIME, WORLD(origin_first_byte_us), RANGE(0, 60 * S),
     .help = "from a request to its first byte"},
    {"origin.firstByteSpread", SCENARIO_TIME, WORLD(origin_first_byte_spread_us), RANGE(0, 60 * S),
     .help = "uniform on top"},
    {"origin.latency", SCENARIO_TIME, WORLD(origin_latency_us), RANGE(0, 10 * S),
     .help = "one way; a new connection costs two round trips"},
    {"origin.requests", SCENARIO_UINT, WORLD(origin_requests_per_s), RANGE(1, 10000000), OR_ZERO,
     .help = "requests per second, more are answered 429; 0: no limit"},
    {"origin.burst", SCENARIO_UINT, WORLD(origin_requests_burst), RANGE(1, 10000000), OR_ZERO,
     .help = "so many at once, too; 0: as many as per second"},
    {"origin.retryAfter", SCENARIO_UINT, WORLD(origin_retry_after_s), RANGE(1, 3600), OR_ZERO,
     .help = "seconds that a 429 asks for; 0: 1"},
    {"origin.outages.at", SCENARIO_TIME, OUTAGE(at_us), RANGE(0, 24 * HOUR),
     .help = "after the first arrival can be"},
    {"origin.outages.for", SCENARIO_TIME, OUTAGE(for_us), RANGE(MS, 24 * HOUR), OR_ZERO,
     .help = "0: to the end"},
    {"origin.outages.how", SCENARIO_ENUM, OUTAGE(how), RANGE(OUTAGE_REFUSE, 0),
     .choices = outage_choices, .help = "what the registry does meanwhile"},
    {"origin.outages.rate", SCENARIO_RATE, OUTAGE(rate_bps), ANY_RATE,
     .help = "how: slow; 0: as always"},
    {"origin.outages.firstByte", SCENARIO_TIME, OUTAGE(first_byte_us), RANGE(0, 60 * S),
     .help = "how: slow; 0: as always"},

    {"tcp.initial", SCENARIO_SIZE, WORLD(tcp_initial_bytes), RANGE(1024, 64 * MIB), OR_ZERO,
     .help = "slow start from so many bytes, doubled each round trip; 0: full rate at once"},
    {"tcp.idle", SCENARIO_TIME, WORLD(tcp_idle_us), RANGE(MS, HOUR), OR_ZERO,
     .help = "an idle connection's window is halved after so long; 0: never"},
    {"cpu.cores", SCENARIO_UINT, WORLD(cpu.cores), RANGE(1, 1024), OR_ZERO,
     .help = "of each node; 0: work takes no time but for cpu.verifyRate"},
    {"cpu.loopThreads", SCENARIO_UINT, WORLD(cpu.loop_threads), RANGE(1, 1024), OR_ZERO,
     .help = "threads for sockets and ciphers (the agent: 1); 0: any core"},
    {"cpu.receive", SCENARIO_PER_GB, WORLD(cpu.receive_ps), RANGE(0, 1000000),
     .help = "processor time per GB from a peer: read and open"},
    {"cpu.serve", SCENARIO_PER_GB, WORLD(cpu.serve_ps), RANGE(0, 1000000),
     .help = "per GB to a peer: seal and write"},
    {"cpu.origin", SCENARIO_PER_GB, WORLD(cpu.origin_ps), RANGE(0, 1000000),
     .help = "per GB from the origin: read and TLS"},
    {"cpu.verify", SCENARIO_PER_GB, WORLD(cpu.verify_ps), RANGE(0, 1000000),
     .help = "per GB hashed"},
    {"cpu.store", SCENARIO_PER_GB, WORLD(cpu.store_ps), RANGE(0, 1000000),
     .help = "per GB into the cache's file or out of it"},
    {"cpu.client", SCENARIO_PER_GB, WORLD(cpu.client_ps), RANGE(0, 1000000),
     .help = "per GB to the client"},
    {"cpu.message", SCENARIO_NANOS, WORLD(cpu.message_ns), RANGE(0, 1000000000),
     .help = "per datagram, at each end"},
    {"cpu.handshake", SCENARIO_TIME, WORLD(cpu.handshake_us), RANGE(0, S),
     .help = "each side of a session between nodes"},
    {"cpu.tls", SCENARIO_TIME, WORLD(cpu.tls_us), RANGE(0, S),
     .help = "of a new connection to the origin"},
    {"cpu.verifyRate", SCENARIO_RATE, WORLD(verify_bps), ANY_RATE,
     .help = "cpu.cores 0: opening, hashing and storing of a piece; 0: takes no time"},
    {"disk.read", SCENARIO_RATE, WORLD(disk_read_bps), ANY_RATE, .help = "0: no limit"},
    {"disk.write", SCENARIO_RATE, WORLD(disk_write_bps), ANY_RATE, .help = "0: no limit"},
    {"disk.memory", SCENARIO_SIZE, WORLD(memory_bytes), RANGE(MIB, 1ULL << 44), OR_ZERO,
     .help = "last used pieces that need no read from disk"},
    {"cache.mode", SCENARIO_ENUM, SELF(cache_mode), RANGE(CACHE_DISK, 0), .choices = cache_choices,
     .help = "memory: the disk is never used"},
    {"cache.capacity", SCENARIO_SIZE, WORLD(cache_bytes), RANGE(16 * MIB, 1ULL << 50), OR_ZERO,
     .help = "of each node; 0: everything is kept"},

    {"image.layers", SCENARIO_SIZES, SELF(image.layers), RANGE(1, 1ULL << 40),
     .help = "sizes of the image's layers"},
    {"image.manifest", SCENARIO_PATH, SELF(image.manifest), RANGE(0, SCENARIO_TEXT_BYTES - 1),
     .help = "or a file with what `skopeo inspect --raw` prints"},
    {"image.order", SCENARIO_UINT, SELF(order), RANGE(1, IMAGE_LAYERS_MAX), .word = "all",
     .help = "layers a client pulls at once: 3 as containerd does, or all"},
    {"image.prefetch", SCENARIO_BOOL, WORLD(prefetch), RANGE(0, 1),
     .help = "nodes bring in the next layers meanwhile (the agent's transfer.prefetch)"},
    {"image.pieceSize", SCENARIO_SIZE, SELF(piece_bytes), RANGE(PIECE_BYTES_MIN, PIECE_BYTES_MAX),
     OR_ZERO,
     .help = "of all images, what if: pieces of so many bytes, a power of two; 0: as agents cut "
             "blobs, by their size"},
    {"images.name", SCENARIO_TEXT, IMAGE(name), RANGE(0, 63), .help = "for people"},
    {"images.layers", SCENARIO_SIZES, IMAGE(layers), RANGE(1, 1ULL << 40),
     .help = "sizes of its layers"},
    {"images.manifest", SCENARIO_PATH, IMAGE(manifest), RANGE(0, SCENARIO_TEXT_BYTES - 1),
     .help = "or a file with what `skopeo inspect --raw` prints"},
    {"images.nodes", SCENARIO_FRACTION, IMAGE(share_ppm), RANGE(1, PPM),
     .help = "share of the nodes that pull it"},
    {"images.copies", SCENARIO_ENUM, IMAGE(copies), RANGE(0, 0), .choices = image_copies_choices,
     .help = "its registry's own `copies`; default: as all"},
    {"images.at", SCENARIO_TIME, IMAGE(at_us), RANGE(0, 24 * HOUR),
     .help = "after the node's arrival"},

    {"arrivals.kind", SCENARIO_ENUM, SELF(arrivals), RANGE(ARRIVALS_CROWD, 0),
     .choices = arrivals_choices, .help = "when nodes begin to pull"},
    {"arrivals.within", SCENARIO_TIME, SELF(within_us), RANGE(0, HOUR),
     .help = "crowd, or a rolling update's batch: all within this time"},
    {"arrivals.batch", SCENARIO_FRACTION, SELF(batch_ppm), RANGE(1, PPM),
     .help = "rolling: share of the nodes in each batch"},
    {"arrivals.every", SCENARIO_TIME, SELF(every_us), RANGE(MS, 24 * HOUR), OR_ZERO,
     .help = "rolling: time between batches; 0: each when the one before is done"},
    {"arrivals.rate", SCENARIO_MILLI, SELF(per_second_milli), RANGE(1, 1000000000),
     .help = "poisson: nodes per second on average"},
    {"arrivals.for", SCENARIO_TIME, SELF(for_us), RANGE(S, 24 * HOUR), OR_ZERO,
     .help =
         "poisson: for so long jobs come, each with one image (by `nodes` of images as weights) "
         "on any node, had before or not; 0: each node comes once"},
    {"arrivals.trace", SCENARIO_PATH, SELF(trace_file), RANGE(0, SCENARIO_TEXT_BYTES - 1),
     .help = "trace: a file with lines of `seconds node [image]`"},

    {"faults.kind", SCENARIO_ENUM, FAULT(kind), RANGE(FAULT_KILL, 0), .choices = fault_choices,
     .help = "what goes wrong"},
    {"faults.at", SCENARIO_TIME, FAULT(at_us), RANGE(0, 24 * HOUR),
     .help = "after the first arrival can be"},
    {"faults.for", SCENARIO_TIME, FAULT(for_us), RANGE(MS, 24 * HOUR), OR_ZERO,
     .help = "freeze, slow, partition, outage, churn, loss, hostile, cpu, disk, isolate: so long; "
             "0: to the end"},
    {"faults.nodes", SCENARIO_NODES, FAULT(nodes), RANGE(1, WORLD_NODES_MAX),
     .help = "all but partition, outage, churn, loss: a number or a share of the nodes, drawn "
             "from the seed"},
    {"faults.node", SCENARIO_UINT, FAULT(node), RANGE(0, WORLD_NODES_MAX - 1),
     .help = "or this one"},
    {"faults.aim", SCENARIO_ENUM, FAULT(aim), RANGE(0, 0), .choices = aim_choices,
     .help = "kill, restart: not drawn, but who grants leases at that moment, or has them"},
    {"faults.zone", SCENARIO_UINT, FAULT(zone), RANGE(0, SCENARIO_ZONES_MAX - 1),
     .help = "partition: from this zone"},
    {"faults.to", SCENARIO_UINT, FAULT(to_zone), RANGE(0, SCENARIO_ZONES_MAX - 1),
     .help = "partition: to this one"},
    {"faults.oneWay", SCENARIO_BOOL, FAULT(one_way), RANGE(0, 1),
     .help = "partition, isolate: the other way stays open"},
    {"faults.divisor", SCENARIO_MILLI, FAULT(divisor_milli), RANGE(1001, 1000000000),
     .help = "slow, cpu: the card or the processor is so many times slower"},
    {"faults.how", SCENARIO_ENUM, FAULT(how), RANGE(OUTAGE_REFUSE, 0), .choices = outage_choices,
     .help = "outage: what the registry does meanwhile"},
    {"faults.rate", SCENARIO_RATE, FAULT(rate_bps), ANY_RATE,
     .help = "outage, how: slow; 0: as always"},
    {"faults.firstByte", SCENARIO_TIME, FAULT(first_byte_us), RANGE(0, 60 * S),
     .help = "outage, how: slow; 0: as always"},
    {"faults.perMinute", SCENARIO_FRACTION, FAULT(per_minute_ppm), RANGE(1, 10 * PPM),
     .help = "churn: of the nodes"},
    {"faults.down", SCENARIO_TIME, FAULT(down_us), RANGE(MS, 24 * HOUR),
     .help = "restart, churn: a node is gone for so long"},
    {"faults.keepCache", SCENARIO_BOOL, FAULT(keep_cache), RANGE(0, 1),
     .help = "restart, churn: it comes back with what it had"},
    {"faults.loss", SCENARIO_FRACTION, FAULT(loss_ppm), RANGE(0, PPM / 2),
     .help = "loss: of all datagrams"},
    {"faults.acts", SCENARIO_ENUM, FAULT(acts), RANGE(1, 0), .choices = acts_choices,
     .help = "hostile: sends wrong bytes, 1 KB/s, or none; claims all pieces, none or any; damages "
             "its messages"},
    {"faults.error", SCENARIO_ENUM, FAULT(error), RANGE(0, 0), .choices = error_choices,
     .help = "disk: nothing can be written, writes fail, or reads"},
    {"faults.wait", SCENARIO_TIME, FAULT(wait_us), RANGE(0, 60 * S),
     .help = "disk: each read and write takes so much longer"},
    {"silentDeath", SCENARIO_BOOL, WORLD(silent_death), RANGE(0, 1),
     .help = "who is killed sends no reset: peers notice by time-out"},

    {"checks.p50", SCENARIO_MILLI, SELF(checks.p50), RANGE(1000, 1000000), OR_ZERO,
     .help = "most completion / bound of half of the nodes; 0: no check"},
    {"checks.p99", SCENARIO_MILLI, SELF(checks.p99), RANGE(1000, 1000000), OR_ZERO,
     .help = "of 99 %"},
    {"checks.p999", SCENARIO_MILLI, SELF(checks.p999), RANGE(1000, 1000000), OR_ZERO,
     .help = "of 99.9 %"},
    {"checks.last", SCENARIO_MILLI, SELF(checks.last), RANGE(1000, 1000000), OR_ZERO,
     .help = "of all"},
    {"checks.lastTime", SCENARIO_TIME, SELF(checks.last_us), RANGE(MS, 24 * HOUR), OR_ZERO,
     .help = "longest completion"},
    {"checks.originCopies", SCENARIO_MILLI, SELF(checks.origin_copies), RANGE(1, 100000000),
     OR_ZERO, .help = "most bytes from the origin / bytes of one node"},
    {"checks.crossZoneCopies", SCENARIO_MILLI, SELF(checks.cross_zone_copies), RANGE(1, 100000000),
     OR_ZERO, .help = "the same across zone borders"},
    {"checks.uploadSkew", SCENARIO_MILLI, SELF(checks.upload_skew), RANGE(1000, 100000000), OR_ZERO,
     .help = "most / mean bytes uploaded by a node"},
    {"checks.controlFraction", SCENARIO_FRACTION, SELF(checks.control_ppm), RANGE(1, PPM), OR_ZERO,
     .help = "most control bytes / payload bytes"},
    {"checks.p99AgainstFaultless", SCENARIO_MILLI, SELF(checks.p99_faultless), RANGE(1, 1000000),
     OR_ZERO,
     .help = "most p99 / p99 of the same run without faults and slow cards, which is run, too; "
             "levelled: without the time a node was down itself, and per its card's rate"},
    {"checks.originAgainstFaultless", SCENARIO_MILLI, SELF(checks.origin_faultless),
     RANGE(1, 1000000), OR_ZERO, .help = "the same for bytes from the origin"},
    {"checks.invariants", SCENARIO_BOOL, SELF(checks.invariants), RANGE(0, 1),
     .help = "test all cores every simulated second; slow"},

    {"run.settle", SCENARIO_TIME, SELF(settle_us), RANGE(0, HOUR),
     .help = "from the nodes' start to the first arrival"},
    {"run.warmFrom", SCENARIO_UINT, SELF(warm_from), RANGE(2, WORLD_NODES_MAX), OR_ZERO,
     .help = "from so many nodes on all begin with full views instead of joining; 0: never"},
    {"run.limit", SCENARIO_TIME, SELF(limit_us), RANGE(S, 24 * HOUR),
     .help = "a pull that has not ended by then has failed"},
    {"run.oneHop", SCENARIO_BOOL, WORLD(mesh.dht.one_hop), RANGE(0, 1),
     .help = "lookups use the full view of the members"},
    {"run.quantum", SCENARIO_TIME, WORLD(flow_quantum_us), RANGE(0, S), .word = "auto",
     .word_value = WORLD_AUTO, .help = "rates are made right at multiples of this; 0: at once"},
    {"run.slack", SCENARIO_UINT, WORLD(flow_slack), RANGE(2, 1000000), OR_ZERO, .word = "auto",
     .word_value = WORLD_AUTO, .help = "and to one part in this; 0: exactly"},
    {"run.log", SCENARIO_ENUM, WORLD(trace_level), RANGE(LOG_NONE, 0), .choices = log_choices,
     .help = "the nodes' own lines, to stderr"},
};

static_assert(sizeof keys / sizeof keys[0] <= SCENARIO_KEYS_MAX, "scenario.lines has room for all");

const struct scenario_key *scenario_keys(size_t *count)
{
    *count = sizeof keys / sizeof keys[0];
    return keys;
}

size_t scenario_key_find(const char *name)
{
    size_t i = 0;
    while (i < sizeof keys / sizeof keys[0] && strcmp(keys[i].name, name) != 0)
        i++;
    return i;
}

void scenario_defaults(struct scenario *out)
{
    *out = (struct scenario){
        .slow_divisor_milli = 10000,
        .cache_mode = CACHE_DISK,
        .image = {.layers = {128 * MIB}, .layer_count = 1, .share_ppm = PPM},
        .arrivals = ARRIVALS_CROWD,
        .within_us = S,
        .batch_ppm = PPM / 5,
        .per_second_milli = 1000,
        .settle_us = 30 * S,
        .warm_from = 300,
        .limit_us = HOUR,
    };
    world_config_defaults(&out->world);
    if (out->world.mesh.transfer.copies == 0)
        out->world.mesh.transfer.copies = TRANSFER_COPIES_MESH;
}
