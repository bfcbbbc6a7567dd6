"""`tidegate api`: the HTTP management API of the gateway that runs on this machine; and who may use it."""

from edge.errors import ConfigError
from gateway.config import reader as config
from gateway.manage.access import ROLES, Access, add_certificate, add_token


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", help="the configuration (tidegate.toml)")
    parser.add_argument("--new-token", metavar="NAME", help="let NAME in: print a new token, once, and end")
    parser.add_argument("--new-cert", metavar="CN", help="let the client certificate of this common name in, and end")
    parser.add_argument("--role", choices=ROLES, default="read", help="what a new one may do (read)")
    parser.add_argument("--port-file", metavar="FILE", help="write the port here once it is open")


def run(arguments):
    loaded = config.load(arguments.config)
    access = loaded.api.access
    if arguments.new_token:
        print(add_token(access, arguments.new_token, arguments.role))
    elif arguments.new_cert:
        add_certificate(access, arguments.new_cert, arguments.role)
    else:
        _serve(loaded, access, arguments.port_file)


def _serve(loaded, access, port_file):
    from gateway.logs import Log

    log = Log(loaded.gateway.log_format)
    guests = Access(access, lambda message: log.error("api", message))
    try:
        from gateway.manage import api, server
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is missing: install the API with `pip install tidegate[api]`") from None
    server.serve(api.application(loaded.gateway.data), loaded.api, guests, log, port_file)
