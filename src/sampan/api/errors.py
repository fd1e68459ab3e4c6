"""The one table from kinds of error to HTTP status (moby api/server/httpstatus)."""

from sampan import errors

STATUS: dict[type[errors.EngineError], int] = {
    errors.NotFound: 404,
    errors.InvalidArgument: 400,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Forbidden: 403,
    errors.Unauthorized: 401,
    errors.Unavailable: 503,
    errors.NotImplementedYet: 501,
    errors.SystemFailure: 500,
    errors.EngineError: 500,
}


def status_of(error: Exception) -> int:
    """The HTTP status of an error; what is not an EngineError is a fault of ours: 500."""
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500
