"""`tidegate rule new NAME --lang LANGUAGE`: begin a rule in a folder of its name."""

from rulec.scaffold import ENDINGS, scaffold


def add_arguments(parser):
    parser.add_argument("name", metavar="NAME", help="the rule's name, and its folder's")
    parser.add_argument("--lang", choices=ENDINGS, default="sql", help="the language of its source (sql)")


def run(arguments):
    for file in scaffold(".", arguments.name, arguments.lang):
        print(file)
    print(f"next: cd {arguments.name}, tidegate rule build, tidegate rule test")
    return 0
