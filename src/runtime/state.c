/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest and its backups; see state.h. JSON by jansson, everything checked when read. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "digest.h"

#define MANIFEST_VERSION 1
#define BACKUP           "before-"

void state_hash(const struct span *text, char out[STATE_HASH_BYTES])
{
    uint8_t hash[32];
    sha256_of(text->at, text->bytes, hash);
    hex_encode(hash, sizeof hash, out);
}

bool state_is_ours(const struct state_file *file, const char *hash)
{
    for (int i = 0; i < STATE_OURS; i++)
        if (strcmp(file->ours[i], hash) == 0)
            return true;
    return false;
}

struct state_file *state_find(struct state *state, const char *host_path)
{
    for (unsigned i = 0; i < state->file_count; i++)
        if (strcmp(state->files[i].host_path, host_path) == 0)
            return &state->files[i];
    return NULL;
}

static const char *inside(struct state *state, const char *name, const char *rest)
{
    return pool_print(state->pool, "%s/%s%s", state->directory, name, rest);
}

/* ---- reading ---- */

/* A copy of a string that fits; NULL if it is none, or with state->starved. */
static const char *copy_of(struct state *state, const json_t *string)
{
    const char *value = json_string_value(string);
    if (value == NULL || strlen(value) >= RUNTIME_PATH_BYTES)
        return NULL;
    const char *copy = pool_copy(state->pool, value, strlen(value));
    state->starved = state->starved || copy == NULL;
    return copy;
}

static const char *member(struct state *state, const json_t *object, const char *name)
{
    return copy_of(state, json_object_get(object, name));
}

static bool take_hash(const char *text, char out[STATE_HASH_BYTES])
{
    uint8_t hash[32];
    return text != NULL && hex_decode(text, strlen(text), hash, sizeof hash) == 0 &&
           text_copy(out, STATE_HASH_BYTES, text) == 0;
}

static bool take_number(const json_t *object, const char *name, json_int_t max, unsigned *out)
{
    const json_t *value = json_object_get(object, name);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > max)
        return false;
    *out = (unsigned)number;
    return true;
}

static bool take_file(struct state *state, const json_t *object)
{
    struct state_file *file = &state->files[state->file_count];
    const json_t *ours = json_object_get(object, "ours");
    unsigned mode;
    unsigned uid;
    unsigned gid;
    *file = (struct state_file){.host_path = member(state, object, "path")};
    file->mirror = member(state, object, "mirror");
    file->existed = json_is_true(json_object_get(object, "existed"));
    const char *format = json_string_value(json_object_get(object, "format"));
    if (file->host_path == NULL || file->host_path[0] != '/' || file->mirror == NULL ||
        format == NULL || !take_number(object, "mode", 0777, &mode) ||
        !take_number(object, "uid", UINT32_MAX, &uid) ||
        !take_number(object, "gid", UINT32_MAX, &gid))
        return false;
    file->format = strcmp(format, "toml") == 0 ? PLAN_TOML : PLAN_JSON;
    file->mode = (mode_t)mode;
    file->uid = (uid_t)uid;
    file->gid = (gid_t)gid;
    if (!take_hash(json_string_value(json_object_get(object, "before")), file->before) ||
        json_array_size(ours) > STATE_OURS)
        return false;
    for (size_t i = 0; i < json_array_size(ours); i++)
        if (!take_hash(json_string_value(json_array_get(ours, i)), file->ours[i]))
            return false;
    state->file_count++;
    return true;
}

static bool take_all(struct state *state, const json_t *root)
{
    const json_t *files = json_object_get(root, "files");
    const json_t *directories = json_object_get(root, "directories");
    if (json_integer_value(json_object_get(root, "version")) != MANIFEST_VERSION ||
        !json_is_array(files) || json_array_size(files) > PLAN_CHANGES_MAX ||
        json_array_size(directories) > PLAN_DIRECTORIES_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(files); i++)
        if (!take_file(state, json_array_get(files, i)))
            return false;
    for (size_t i = 0; i < json_array_size(directories); i++) {
        const char *one = copy_of(state, json_array_get(directories, i));
        if (one == NULL || one[0] != '/')
            return false;
        state->directories[state->directory_count++] = one;
    }
    return true;
}

static int load(struct state *state, struct runtime_error *error)
{
    struct image image;
    const char *path = inside(state, "manifest.json", "");
    if (path == NULL)
        return plan__no_memory(error);
    int err = tree_read(state->pool, path, TREE_EDIT, &image, error);
    if (err != 0 || !image.exists)
        return err;
    json_t *root = json_loadb(image.text.at, image.text.bytes, JSON_REJECT_DUPLICATES, NULL);
    bool good = root != NULL && take_all(state, root);
    json_decref(root);
    if (state->starved)
        return plan__no_memory(error);
    if (!good)
        return runtime_fail(error, E_CORRUPT,
                            "%.600s is damaged, or of another version of this program. The files "
                            "named " BACKUP "... beside it are what was there before",
                            path);
    return 0;
}

/* Ours alone: what is in it is written over files of root. */
static int check_owner(const char *path, struct runtime_error *error)
{
    struct stat info;
    if (lstat(path, &info) != 0)
        return runtime_fail(error, E_IO, "cannot look at %.600s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 0077) != 0)
        return runtime_fail(error, E_REFUSED,
                            "%.600s must be a directory of this user with mode 0700", path);
    return 0;
}

static int make_directories(const char *path, struct runtime_error *error)
{
    char part[RUNTIME_PATH_BYTES];
    if (text_copy(part, sizeof part, path) != 0)
        return runtime_fail(error, E_INVALID, "the state directory's path is too long");
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int err = tree_make_directory(part, 0700, error);
        if (err != 0)
            return err;
        *slash = '/';
    }
    return tree_make_directory(part, 0700, error);
}

int state_open(struct pool *pool, const struct runtime_options *options, bool make,
               struct state *out, struct runtime_error *error)
{
    static const char *const names[] = {[RUNTIME_CONTAINERD] = "containerd",
                                        [RUNTIME_CONTAINERS] = "containers",
                                        [RUNTIME_DOCKER] = "docker"};
    struct stat info;
    *out = (struct state){.pool = pool, .root = options->root, .lock = -1};
    if (options->state[0] != '/')
        return runtime_fail(error, E_INVALID, "the state directory must be an absolute path");
    out->directory = pool_print(pool, "%s/%s", options->state, names[options->kind]);
    if (out->directory == NULL)
        return plan__no_memory(error);
    if (!make && stat(out->directory, &info) != 0 && errno == ENOENT)
        return 0;
    int err = make ? make_directories(out->directory, error) : 0;
    if (err == 0)
        err = check_owner(out->directory, error);
    if (err != 0)
        return err;
    const char *lock = inside(out, "lock", "");
    if (lock == NULL)
        return plan__no_memory(error);
    out->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out->lock < 0)
        return runtime_fail(error, errno == EACCES || errno == EROFS ? E_DENIED : E_IO,
                            "cannot open %.600s: %s", lock, strerror(errno));
    if (flock(out->lock, LOCK_EX | LOCK_NB) != 0)
        return runtime_fail(error, E_IN_USE, "another apply or revert runs: it holds %.600s", lock);
    return load(out, error);
}

void state_close(struct state *state)
{
    if (state->lock >= 0)
        (void)close(state->lock);
    state->lock = -1;
}

/* ---- writing ---- */

static json_t *file_json(const struct state_file *file)
{
    json_t *ours = json_array();
    for (int i = 0; i < STATE_OURS; i++)
        if (file->ours[i][0] != '\0')
            (void)json_array_append_new(ours, json_string(file->ours[i]));
    return json_pack("{s:s, s:s, s:s, s:b, s:i, s:I, s:I, s:s, s:o}", "path", file->host_path,
                     "format", file->format == PLAN_TOML ? "toml" : "json", "mirror", file->mirror,
                     "existed", (int)file->existed, "mode", (int)file->mode, "uid",
                     (json_int_t)file->uid, "gid", (json_int_t)file->gid, "before", file->before,
                     "ours", ours);
}

static char *manifest_text(const struct state *state)
{
    json_t *files = json_array();
    json_t *directories = json_array();
    bool good = true;
    for (unsigned i = 0; i < state->file_count; i++)
        good = json_array_append_new(files, file_json(&state->files[i])) == 0 && good;
    for (unsigned i = 0; i < state->directory_count; i++)
        good = json_array_append_new(directories, json_string(state->directories[i])) == 0 && good;
    json_t *root = json_pack("{s:i, s:o, s:o}", "version", MANIFEST_VERSION, "files", files,
                             "directories", directories);
    char *text = good && root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}

/* Puts bytes under a name of ours, over what is there. */
static int put(struct state *state, const char *path, const struct span *text,
               struct runtime_error *error)
{
    struct image old;
    const struct image private = {.mode = 0600, .uid = geteuid(), .gid = getegid()};
    int err = tree_read(state->pool, path, TREE_EDIT, &old, error);
    return err != 0 ? err : tree_write(path, text, &old, &private, error);
}

static int remove_all(struct state *state, struct runtime_error *error)
{
    const char *names[2 * PLAN_CHANGES_MAX];
    unsigned count;
    struct image old;
    const char *path = inside(state, "manifest.json", "");
    if (path == NULL)
        return plan__no_memory(error);
    int err = tree_read(state->pool, path, TREE_EDIT, &old, error);
    if (err == 0 && old.exists)
        err = tree_remove(path, &old, error);
    if (err == 0)
        err = tree_list(state->pool, state->directory, names, 2 * PLAN_CHANGES_MAX, &count, error);
    for (unsigned i = 0; err == 0 && i < count; i++) {
        const char *backup = inside(state, names[i], "");
        if (backup != NULL && strncmp(names[i], BACKUP, strlen(BACKUP)) == 0)
            (void)unlink(backup);
    }
    return err;
}

int state_save(struct state *state, struct runtime_error *error)
{
    if (state->lock < 0)
        return 0;
    if (state->file_count == 0 && state->directory_count == 0)
        return remove_all(state, error);
    const char *path = inside(state, "manifest.json", "");
    char *text = manifest_text(state);
    int err = path == NULL || text == NULL ? plan__no_memory(error) : 0;
    const struct span span = {text, text == NULL ? 0 : strlen(text)};
    if (err == 0)
        err = put(state, path, &span, error);
    free(text);
    return err;
}

int state_keep(struct state *state, const struct span *text, char hash[STATE_HASH_BYTES],
               struct runtime_error *error)
{
    state_hash(text, hash);
    const char *path = inside(state, BACKUP, hash);
    return path == NULL ? plan__no_memory(error) : put(state, path, text, error);
}

int state_fetch(struct state *state, const char *hash, struct span *out,
                struct runtime_error *error)
{
    char got[STATE_HASH_BYTES];
    struct image image;
    const char *path = inside(state, BACKUP, hash);
    if (path == NULL)
        return plan__no_memory(error);
    int err = tree_read(state->pool, path, TREE_EDIT, &image, error);
    if (err != 0)
        return err;
    state_hash(&image.text, got);
    if (!image.exists || strcmp(got, hash) != 0)
        return runtime_fail(error, E_CORRUPT, "%.600s is gone or damaged", path);
    *out = image.text;
    return 0;
}
