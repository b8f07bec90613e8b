"""Errors a user can mend. Their message names the file, row or field, what is wrong, and what to do.

The command line shows them as one line without a traceback; every other exception is a bug of ours and keeps its trace.
"""


class UserError(Exception):
    """Something the user gave is wrong; `str(error)` is the one line to show."""


class AssetError(UserError):
    """A 3D file cannot be read or holds nothing that can be animated."""


class SourceError(UserError):
    """Something that training samples are made from is missing, damaged or not what it should be."""


class ExportError(UserError):
    """A file of a result, read back, is not what was to be written; the result is not kept."""


class ManifestError(UserError):
    """A manifest row or column is wrong."""


class ShardError(UserError):
    """A shard, its index or one of its samples is damaged or foreign."""


class StorageError(ShardError):
    """The storage under shards, labels or latents fails: no single sample is to blame."""


class ModelError(UserError):
    """A model folder or checkpoint is missing, incomplete or does not fit."""


class ConfigError(UserError):
    """A configuration field has a value outside its range."""


class ToolError(UserError):
    """An external program is missing or failed."""


class ClusterError(UserError):
    """The cluster cannot give what was asked for."""


class TrainingError(UserError):
    """A training cannot go on; its last checkpoint is kept."""
