/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration of the agent: one table of keys (config_keys.c) from which parsing, `shoal config
 * show` and the README's table are made. Values come, later over earlier, from the defaults, one
 * YAML file, SHOAL_... environment variables and --set. A bad value stops the start with one line
 * that names place, key, value and range (A7). Secrets are never values here, only files' names.
 *
 * The struct is filled once and then read by everybody; only the keys marked live change later
 * (config_apply_live).
 */
#ifndef SHOAL_DAEMON_CONFIG_H
#define SHOAL_DAEMON_CONFIG_H

#include <stdio.h>

#include "env.h"
#include "err.h"
#include "registry.h"
#include "topology.h"
#include "transfer.h"
#include "types.h"

#define CONFIG_PATH_BYTES     1024
#define CONFIG_SECRETS_MAX    2
#define CONFIG_BOOTSTRAP_MAX  64
#define CONFIG_INSTANCES_MAX  64
#define CONFIG_TEXT_BYTES     256
#define CONFIG_TLS_PAIRS_MAX  8
#define CONFIG_DETECT_MAX     8
#define CONFIG_PREFIXES_MAX   128
#define CONFIG_CLUSTER_ID_MAX 63
#define CONFIG_KEYS_MAX       128
#define CONFIG_FILE_BYTES_MAX (1024 * 1024)
#define CONFIG_ERROR_BYTES    1024
#define CONFIG_DATA_DIR_ROOT  "/var/lib/shoal"
#define CONFIG_FILE_ROOT      "/etc/shoal/shoal.yaml"
#define CONFIG_TLS_PORT       443
#define CONFIG_CLIENT_PORT    65001
#define CONFIG_MESH_PORT      65002
#define CONFIG_ADMIN_PORT     65003
#define CONFIG_PREFETCH_PORT  65004

struct config_path {
    char text[CONFIG_PATH_BYTES]; /* "" is unset */
};
struct config_text {
    char text[CONFIG_TEXT_BYTES]; /* "" is unset */
};

enum config_mode {
    CONFIG_MODE_NORMAL = 1,
    CONFIG_MODE_PASSTHROUGH, /* kill switch HRD-7: every request goes to the origin */
};
enum config_cache_mode {
    CONFIG_CACHE_DISK = 1,
    CONFIG_CACHE_MEMORY,
};
enum config_trust { /* INT-3 */
                    CONFIG_TRUST_MEMBER = 1,
                    CONFIG_TRUST_QUORUM,
                    CONFIG_TRUST_VERIFIED,
};
enum config_signature {
    CONFIG_SIGNATURE_V3 = 1,
    CONFIG_SIGNATURE_V1,
};
enum config_offline { /* ACL-6 */
                      CONFIG_OFFLINE_DENY = 1,
                      CONFIG_OFFLINE_SAME,
};
enum config_log_format {
    CONFIG_LOG_TEXT = 1,
    CONFIG_LOG_JSON,
};

/* Where a value came from; a later one wins. */
enum config_source {
    CONFIG_FROM_DEFAULT = 0,
    CONFIG_FROM_FILE,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_SET,
};

struct config_options;

/* All values; enums are kept as uint64_t so that one table entry kind fits them all. */
struct config {
    uint64_t mode; /* enum config_mode; live */

    struct config_text cluster_id;
    struct config_path secret_files[CONFIG_SECRETS_MAX];
    uint32_t secret_file_count;
    struct config_path deny_file; /* identity keys refused, one hex key a line (PEER-8) */

    struct config_path data_dir;
    struct config_path content_store; /* containerd's content store, read only; "" none */

    struct peer_addr listen_client;
    struct peer_addr listen_mesh; /* [::] falls back to 0.0.0.0 on hosts without IPv6 */
    struct peer_addr listen_admin;
    struct config_path listen_control; /* "": see control_path */
    struct peer_addr listen_prefetch;  /* port 0: no orders by HTTP */
    struct config_path prefetch_token_file;
    uint64_t prefetch_pushed_on;                               /* enum pull_on, counted from 1 */
    bool prefetch_from_peers;                                  /* order_serve.h */
    struct peer_addr listen_tls;                               /* port 0: no TLS client port */
    struct config_path tls_certificates[CONFIG_TLS_PAIRS_MAX]; /* the n-th key is the n-th one's */
    uint32_t tls_certificate_count;
    struct config_path tls_keys[CONFIG_TLS_PAIRS_MAX];
    uint32_t tls_key_count;
    struct peer_addr advertise; /* port 0: chosen at start, see node_new */
    bool strict_address;        /* a peer's announced IP must be the one its packets come from */

    struct config_text bootstrap[CONFIG_BOOTSTRAP_MAX]; /* host[:port] or address[:port] */
    uint32_t bootstrap_count;

    struct topology topology; /* what is "" is found out: topology_detect.h */
    struct config_text topology_detect[CONFIG_DETECT_MAX];
    uint32_t topology_detect_count;
    struct config_text topology_prefixes[CONFIG_PREFIXES_MAX];
    uint32_t topology_prefix_count;
    struct config_path topology_labels_file;
    struct config_text topology_vswitch_label;
    /* Where the sources are asked; other values are for tests. */
    struct config_text topology_ecs_url;
    struct config_text topology_cloud_url;
    struct config_text topology_kubernetes_url; /* "": from the environment */
    struct config_path topology_account;        /* directory of the service account */

    uint64_t cache_mode;           /* enum config_cache_mode */
    uint64_t cache_capacity_bytes; /* disk mode: on disk. Memory mode: not used (0) */
    uint64_t cache_memory_bytes;  /* disk mode: memory tier over the disk; memory mode: the cache */
    uint64_t cache_reserve_bytes; /* device bytes left alone (DSK-4) */

    uint64_t copies;         /* enum transfer_copies */
    uint64_t trust;          /* enum config_trust */
    bool prefetch_ranges;    /* all of a layer of which ranges are read */
    bool prefetch_layers;    /* an image's next layers, before they are asked for (prefetch.h) */
    uint64_t tag_ttl_us;     /* a tag's answer counts for so long; 0: until the next question */
    uint64_t offline;        /* enum config_offline */
    uint64_t grant_life_us;  /* ACL-2: the registry's word on who may read counts so long */
    uint64_t grant_stale_us; /* ACL-6: grants outlive an unreachable registry so long; 0 never */

    uint64_t upload_mbit;     /* 0: no limit */
    uint64_t origin_mbit;     /* 0: no limit */
    uint64_t nic_mbit;        /* rate class announced to the mesh; 0: read from the interface */
    uint64_t buffer_bytes;    /* hard cap of piece buffers (buffer.h) */
    uint64_t connections_max; /* client connections (HTTP-4) */
    uint64_t connections_per_address;
    uint64_t parallel_requests;   /* client requests worked on at once (proxyFsParallels) */
    uint64_t connect_timeout_us;  /* to a peer or the origin */
    uint64_t transfer_timeout_us; /* idle limit of an upstream */
    uint64_t stop_grace_us;       /* SIGTERM to exit at most */

    uint64_t log_level; /* enum log_level; live */
    uint64_t log_format;
    bool log_audit; /* a line for each client request (audit.h) */

    /* Alibaba Cloud Container Registry (acr.h, acr_part.c) */
    struct config_text acr_instances[CONFIG_INSTANCES_MAX];
    uint32_t acr_instance_count;
    struct config_text acr_region;
    struct config_text acr_vpc;
    struct config_path access_key_file;
    bool rrsa_enable;
    struct config_text rrsa_role;
    struct config_text rrsa_provider;
    struct config_path rrsa_token_file;
    struct config_text rrsa_assume_role;
    uint64_t rrsa_duration_us;
    uint64_t acr_signature; /* enum config_signature */
    struct config_text acr_cr_url, acr_sts_url, acr_metadata_url;
    bool acr_plain_http;
    uint64_t block_bytes; /* ACR's blocksize: origin ranges start on its multiples */
    bool aio;
    /* What the ACR component's names said; config_acr_settle puts it into the fields above, so
       nobody else reads these. 0, "" unset. */
    uint64_t memory_mode_bytes; /* memoryCacheCapacityGB */
    uint64_t layers_max;        /* p2p.v2.proxyConcurrencyLimit */
    bool exporter_enable;
    uint64_t log_audit_mode;
    struct config_path log_dir;

    /* Built-in registries first unless overridden by name, then the configured ones; one is the
       default. Owned; freed by config_close. Use config_registries. */
    struct registry_entry *registry_entries;
    uint32_t registry_count;
    bool builtin_registries;

    /* By index into config_keys(); sources of registries beside them. */
    uint8_t sources[CONFIG_KEYS_MAX];
    uint32_t lines[CONFIG_KEYS_MAX]; /* CONFIG_FROM_FILE: line */
    uint8_t registries_source;
    struct config_path file;              /* the file read; "" none */
    char *const *environment;             /* borrowed from the options; NULL: none */
    const struct config_options *options; /* to load it again; NULL: never. Set by the caller */
};

/* One line for the operator, without newline. "" while there is no error. */
struct config_error {
    char text[CONFIG_ERROR_BYTES];
};

/* What the command line gives. */
#define CONFIG_SETS_MAX 128
struct config_options {
    const char *file;                  /* NULL: the default file if it exists */
    const char *sets[CONFIG_SETS_MAX]; /* "key=value", borrowed */
    unsigned set_count;
    char *const *environment; /* as environ; NULL: none. Unknown SHOAL_ names are ignored:
                                 Kubernetes makes such names for a service called shoal */
};

/*
 * Loads everything into *out, which need not be initialised. 0; E_CONFIG with error->text saying
 * what and where, E_NO_MEMORY. On error *out holds nothing to close.
 */
MUST_USE int config_load(const struct config_options *options, struct config *out,
                         struct config_error *error);
/* Frees what config_load allocated. */
void config_close(struct config *config);
/* Value of an environment variable that is not a key of ours; "" if it is not there. */
const char *config_environment(const struct config *config, const char *variable);
/* Capacity of the cache in its mode, bytes. */
uint64_t config_cache_bytes(const struct config *config);
/* Table for src/registry, borrowed from `config`. */
struct registries config_registries(const struct config *config);
/* Checks that values fit together and that named files exist with safe modes; called by the agent
 * and by `config check`, not by config_load. 0 or E_CONFIG. */
MUST_USE int config_verify(const struct config *config, struct config_error *error);
/* Takes every error, one line each, as config_load and config_verify would give the first. */
#define CONFIG_ERRORS_TOLD 50
struct config_report {
    void (*tell)(void *arg, const char *line); /* called for the first CONFIG_ERRORS_TOLD */
    void *arg;
    unsigned errors; /* 0 before; how many there were */
};
/* config_load and config_verify that go on behind an error: values that do not fit together are
 * looked for once each value is good. 0: *out is to be closed; E_CONFIG: told to `report`;
 * E_NO_MEMORY. */
MUST_USE int config_check(const struct config_options *options, struct config_report *report,
                          struct config *out);
/* Copies the live keys of `fresh` into `config`: mode, log.level, and clusterSecretFile where both
 * have one. True if one changed. */
bool config_apply_live(struct config *config, const struct config *fresh);

/* Effective configuration as YAML with the source of each value behind it. */
void config_show(const struct config *config, FILE *out);
/* The same as one JSON object {key: {value, source}}. 0 or E_NO_MEMORY. */
MUST_USE int config_show_json(const struct config *config, FILE *out);
/* The README's table of all keys. */
void config_show_markdown(FILE *out);

/* ---- the table ------------------------------------------------------------------------------ */

enum config_type {
    CONFIG_BOOL = 1,
    CONFIG_UINT,    /* uint64_t, min..max */
    CONFIG_SIZE,    /* uint64_t bytes: "64MiB", "4GiB", "1GB", plain bytes */
    CONFIG_SECONDS, /* uint64_t microseconds: "15", "15s", "500ms", "5m", "1h" */
    CONFIG_ENUM,    /* uint64_t, one of choices, counted from 1 */
    CONFIG_TEXT,    /* struct config_text */
    CONFIG_PATH,    /* struct config_path */
    CONFIG_LABEL,   /* struct label */
    CONFIG_ADDRESS, /* struct peer_addr, address[:port]; a host name is refused */
    CONFIG_PORT,    /* alias: the port of a struct peer_addr */
    CONFIG_TEXTS,   /* struct config_text[max] and a uint32_t count */
    CONFIG_PATHS,   /* struct config_path[max] and a uint32_t count */
};
#define CONFIG_KEY_LIVE    1u /* re-read while running */
#define CONFIG_KEY_ZERO_OK 2u /* 0 is allowed below min */
#define CONFIG_KEY_ALIAS   4u /* another spelling; not shown, `canonical` names the key */
#define CONFIG_KEY_LATER                                                                           \
    8u /* reserved: checked like any, but setting it is an error: nothing acts on it yet */
struct config_key {
    const char *name; /* dotted */
    enum config_type type;
    unsigned flags;
    size_t offset;              /* in struct config */
    size_t count_offset;        /* lists: of the uint32_t count */
    const char *fallback;       /* default as text, parsed like any value; lists: "a,b" */
    uint64_t min, max;          /* UINT, SIZE (bytes), SECONDS (us), lists: most entries in max */
    uint64_t unit;              /* SIZE, SECONDS: what a plain number means; 0: 1 byte, 1 s */
    const char *const *choices; /* ENUM: NULL-terminated */
    const char *canonical;      /* ALIAS; NULL: has a field of its own, see config_acr_settle */
    const char *help;           /* one sentence */
};
/* The table, in the order in which it is shown. */
const struct config_key *config_keys(size_t *count);
/* Index of a key by exact name; count if there is none. */
size_t config_key_find(const char *name);
/* Name of the environment variable of a key: "listen.client" -> "SHOAL_LISTEN_CLIENT", "clusterId"
 * -> "SHOAL_CLUSTER_ID". `out` is returned. */
#define CONFIG_VARIABLE_BYTES 96
const char *config_key_variable(const struct config_key *key, char out[CONFIG_VARIABLE_BYTES]);
/* Allowed values for people ("1..65535", "disk | memory"). `out` is returned. */
#define CONFIG_RANGE_BYTES 160
const char *config_key_range(const struct config_key *key, char out[CONFIG_RANGE_BYTES]);
/* Parses one scalar into its place (lists: appends). 0 or E_CONFIG; *out unchanged on error. */
MUST_USE int config_value_parse(const struct config_key *key, const char *text, struct config *out);
/* The value as text; `out` is returned. Lists are joined by ", ". */
const char *config_value_text(const struct config_key *key, const struct config *config, char *out,
                              size_t out_bytes);

/* What the keys of ACR.md §8 mean together (config_acr.c). 0 or E_CONFIG. */
MUST_USE int config_acr_verify(const struct config *config, struct config_error *error);
/* Once all sources are read: what the ACR component's names say goes into the fields that are acted
 * on, with its source. 0; E_CONFIG: they contradict each other, or ours. */
MUST_USE int config_acr_settle(struct config *config, struct config_error *error);
/* One line for each value that was set and changes nothing, borrowed for the call: `warning` if its
 * author may count on it. */
typedef void (*config_note_fn)(void *arg, bool warning, const char *line);
void config_notes(const struct config *config, config_note_fn note, void *arg);

/* ---- shared inside config*.c ------------------------------------------------------------------
 */

/* Sets error->text by format and returns E_CONFIG. */
int config_fail(struct config_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What an error may repeat of a refused value: the value, borrowed, or "..." if it holds '@' or
 * '?', around which URLs have their passwords and signatures (HRD-4). */
const char *config_shown(const char *value);

/* registries: collects entries from items "registries[].x" (config_registries.c). */
struct config_registry_draft {
    struct registry_entry entry;
    bool plain_http;
    bool private_set; /* allowPrivate was true or false: a list may not follow */
    unsigned realm_count;
    unsigned line;
};
/* One scalar of a registries entry. `name` is the part behind "registries.". 0 or E_CONFIG. */
MUST_USE int config_registry_set(struct config_registry_draft *draft, const char *name,
                                 const char *value, struct config_error *error);
/* Checks drafts and merges them over the built-in entries into out->registry_entries. 0, E_CONFIG,
 * E_NO_MEMORY. */
MUST_USE int config_registries_merge(const struct config_registry_draft *drafts, unsigned count,
                                     struct config *out, struct config_error *error);

#endif
