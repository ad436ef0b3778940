/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node is on disk: data directory, identity, cluster secrets, deny list. Secrets and deny
 * list are read again when their files change (PEER-8).
 */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"
#include "net.h"
#include "node_internal.h"
#include "secret_file.h"

static int file_in(const struct config *config, const char *name, char out[CONFIG_PATH_BYTES],
                   struct config_error *error)
{
    int written = snprintf(out, CONFIG_PATH_BYTES, "%s/%s", config->data_dir.text, name);
    if (written > 0 && written < CONFIG_PATH_BYTES)
        return 0;
    return config_fail(error, "dataDir: path is too long");
}

/* ---- data directory ---- */

/* mkdir -p of our own; directories above are made 0755. */
static int make_directories(const char *path)
{
    char copy[CONFIG_PATH_BYTES];
    if (text_copy(copy, sizeof copy, path) != 0)
        return E_TOO_LARGE;
    for (char *at = copy + 1; *at != '\0'; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            return E_IO;
        *at = '/';
    }
    return mkdir(copy, 0700) != 0 && errno != EEXIST ? E_IO : 0;
}

static int check_directory(const char *path, const struct stat *info, struct config_error *error)
{
    const char *why = NULL;
    if (S_ISLNK(info->st_mode))
        why = "is a symbolic link";
    else if (!S_ISDIR(info->st_mode))
        why = "is not a directory";
    else if (info->st_uid != geteuid())
        why = "belongs to another user";
    else if ((info->st_mode & 0077) != 0)
        why = "is open to others; run chmod 0700 on it";
    if (why == NULL)
        return 0;
    (void)config_fail(error, "dataDir: %.500s %s", path, why);
    return E_DENIED;
}

/* Held until the process ends: two agents in one directory would destroy each other's cache. */
static int lock_directory(const char *path, struct config_error *error)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = directory < 0
                 ? -1
                 : openat(directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int code = errno;
    if (directory >= 0)
        (void)close(directory);
    if (fd < 0) {
        (void)config_fail(error, "dataDir: cannot write to %.500s: %s", path, strerror(code));
        return code == ENOSPC ? E_NO_SPACE : E_DENIED;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        (void)config_fail(error, "dataDir: %.500s is in use by another agent", path);
        (void)close(fd);
        return E_IN_USE;
    }
    return 0; /* the descriptor stays open on purpose */
}

int node_data_dir(const struct config *config, struct config_error *error)
{
    struct stat info;
    const char *path = config->data_dir.text;
    if (lstat(path, &info) != 0 && errno == ENOENT && make_directories(path) != 0) {
        (void)config_fail(error, "dataDir: cannot make %.500s: %s", path, strerror(errno));
        return E_DENIED;
    }
    if (lstat(path, &info) != 0) {
        (void)config_fail(error, "dataDir: cannot use %.500s: %s", path, strerror(errno));
        return E_IO;
    }
    int err = check_directory(path, &info, error);
    return err != 0 ? err : lock_directory(path, error);
}

/* ---- identity ---- */

static int identity_make(struct node *node, const char *path, struct config_error *error)
{
    uint8_t bytes[IDENTITY_FILE_BYTES];
    char short_key[SHORT_HEX_BYTES];
    identity_generate(&node->env, &node->identity);
    identity_encode(&node->identity, bytes);
    int err = file_write_atomic(path, 0400, bytes, sizeof bytes);
    sodium_memzero(bytes, sizeof bytes);
    if (err != 0) {
        (void)config_fail(error, "dataDir: cannot write %.500s: %s", path, err_text(err));
        return err;
    }
    log_to(&node->env, LOG_INFO, "node: new identity key=%s",
           short_hex(node->identity.public_key.bytes, short_key));
    return 0;
}

int node_identity_load(struct node *node, struct config_error *error)
{
    char path[CONFIG_PATH_BYTES];
    char *bytes = NULL;
    size_t byte_count = 0;
    int err = file_in(node->config, "identity", path, error);
    if (err != 0)
        return err;
    err = file_read_whole(path, IDENTITY_FILE_BYTES, &bytes, &byte_count);
    if (err == E_NOT_FOUND)
        return identity_make(node, path, error);
    if (err == E_DENIED || err == E_IO || err == E_NO_MEMORY) {
        (void)config_fail(error, "dataDir: cannot read %.500s: %s", path, err_text(err));
        return err;
    }
    if (err == 0) {
        err = secret_file_check(path, error);
        if (err == 0)
            err = identity_decode((const uint8_t *)bytes, byte_count, &node->identity);
        sodium_memzero(bytes, byte_count);
        (void)loop_alloc(NULL, bytes, 0);
        if (err == 0 || err == E_CONFIG)
            return err;
    }
    /* A key is replaceable: the node's place in the mesh follows from its address (PEER-4). */
    log_to(&node->env, LOG_WARN, "node: identity file is damaged, making a new one error=%s",
           err_name(err));
    return identity_make(node, path, error);
}

/* ---- admission ---- */

/* No secret configured: one of this node's own, so that it works alone and nobody else gets in. */
static int own_secret(struct node *node, struct config_error *error)
{
    char path[CONFIG_PATH_BYTES];
    int err = file_in(node->config, "cluster-secret", path, error);
    if (err == 0 && file_stamp(path) == 0)
        err = secret_file_create(path, error);
    if (err == 0)
        err = secret_file_read(path, node->admission.secrets[0], error);
    if (err == 0)
        node->admission.secret_count = 1;
    return err;
}

static int secrets_read(struct node *node, struct config_error *error)
{
    const struct config *config = node->config;
    uint8_t secrets[CLUSTER_SECRETS_MAX][CLUSTER_SECRET_BYTES];
    uint64_t stamps[CONFIG_SECRETS_MAX] = {0};
    int err = 0;
    for (uint32_t i = 0; i < config->secret_file_count && err == 0; i++) {
        stamps[i] = file_stamp(config->secret_files[i].text);
        err = secret_file_read(config->secret_files[i].text, secrets[i], error);
    }
    if (err == 0) {
        /* All or nothing: a rotation half read would lock peers out. */
        memcpy(node->admission.secrets, secrets, sizeof secrets);
        node->admission.secret_count = config->secret_file_count;
        memcpy(node->files.secret_stamps, stamps, sizeof stamps);
    }
    sodium_memzero(secrets, sizeof secrets);
    return err;
}

static int deny_read(struct node *node, struct config_error *error)
{
    const char *path = node->config->deny_file.text;
    if (*path == '\0')
        return 0;
    node->files.deny_stamp = file_stamp(path);
    return deny_file_read(path, node->admission.denied, DENIED_MAX, &node->admission.denied_count,
                          error);
}

int node_admission_load(struct node *node, struct config_error *error)
{
    int err = text_copy(node->admission.cluster_id, sizeof node->admission.cluster_id,
                        node->config->cluster_id.text);
    ASSERT(err == 0);
    err = node->config->secret_file_count > 0 ? secrets_read(node, error) : own_secret(node, error);
    if (err == 0)
        err = deny_read(node, error);
    if (err == 0)
        admission_lookup_key(&node->admission, node->lookup_key);
    return err;
}

static bool secrets_changed(const struct node *node)
{
    if (node->config->secret_file_count > 0 &&
        node->config->secret_file_count != node->admission.secret_count)
        return true;
    for (uint32_t i = 0; i < node->config->secret_file_count; i++)
        if (file_stamp(node->config->secret_files[i].text) != node->files.secret_stamps[i])
            return true;
    return false;
}

void node_admission_refresh(struct node *node)
{
    struct config_error error = {""};
    if (secrets_changed(node)) {
        int err = secrets_read(node, &error);
        if (err == 0) {
            uint8_t before[sizeof node->lookup_key];
            memcpy(before, node->lookup_key, sizeof before);
            node->counters.secret_reloads++;
            admission_lookup_key(&node->admission, node->lookup_key);
            if (memcmp(before, node->lookup_key, sizeof before) != 0)
                node->names_due = true;
            log_to(&node->env, LOG_INFO, "node: cluster secrets read again count=%u",
                   node->admission.secret_count);
        } else {
            node->counters.secret_reload_failures++;
            log_to(&node->env, LOG_WARN, "node: cluster secrets unchanged: %s", error.text);
        }
    }
    const char *deny = node->config->deny_file.text;
    if (*deny == '\0' || file_stamp(deny) == node->files.deny_stamp)
        return;
    if (deny_read(node, &error) != 0)
        log_to(&node->env, LOG_WARN, "node: deny list unchanged: %s", error.text);
    else
        log_to(&node->env, LOG_INFO, "node: deny list read again count=%u",
               node->admission.denied_count);
    mesh_tcp_drop_denied(&node->tcp);
}

/* ---- address ---- */

void node_choose_address(struct node *node, uint16_t port)
{
    const struct config *config = node->config;
    const struct peer_addr unset = {{0}, 0};
    node->self_port = port;
    if (!peer_addr_equal(&config->advertise, &unset)) {
        node->self_addr = config->advertise;
        if (node->self_addr.port == 0)
            node->self_addr.port = port;
        return;
    }
    if (net_unspecified(&config->listen_mesh))
        net_default_address(&node->self_addr);
    else
        node->self_addr = config->listen_mesh;
    node->self_addr.port = port;
}
