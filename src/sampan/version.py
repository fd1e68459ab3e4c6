"""The version of Sampan and of the Docker Engine API it serves. Facts only: imported by every process."""

VERSION = "0.1.0"
ENGINE_VERSION = "28.5.2"
"""What /version reports as Version: clients gate features on docker's own numbers."""
API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
