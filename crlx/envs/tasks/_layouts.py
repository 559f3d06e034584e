# Drawings of mazes, after Wang et al. (NeurIPS 2025) and JaxGCRL; `Layout` explains the letters.
# Those whose name contains `eval` have only far goals, for evaluation of what was trained on the
# maze of the same name; `single` have the farthest alone, and `1f2f3f` goals at such distances.
LAYOUTS: dict[str, str] = {
    "u_maze": """
#####
#RGG#
###G#
#GGG#
#####
""",
    "u_maze_eval": """
#####
#R..#
###.#
#GGG#
#####
""",
    "u_maze_single_eval": """
#####
#R..#
###.#
#G..#
#####
""",
    "u_maze_eval_1f2f3f4f5f": """
#####
#RGG#
###G#
#.GG#
#####
""",
    "u_maze_eval_1f2f3f4f": """
#####
#RGG#
###G#
#..G#
#####
""",
    "u_maze_eval_1f2f3f": """
#####
#RGG#
###G#
#...#
#####
""",
    "u_maze_eval_5f6f": """
#####
#R..#
###.#
#GG.#
#####
""",
    "u2_maze": """
######
#RGGG#
####G#
#GGGG#
######
""",
    "u2_maze_eval": """
######
#R...#
####.#
#GGGG#
######
""",
    "u2_maze_single_eval": """
######
#R...#
####.#
#G...#
######
""",
    "u3_maze": """
#######
#RGGGG#
#####G#
#GGGGG#
#######
""",
    "u3_maze_eval": """
#######
#R....#
#####.#
#GGGGG#
#######
""",
    "u3_maze_single_eval": """
#######
#R....#
#####.#
#G....#
#######
""",
    "u4_maze": """
#####
#GGG#
#R#G#
###G#
#G#G#
#GGG#
#####
""",
    "u4_maze_eval": """
#####
#...#
#R#.#
###.#
#G#.#
#GGG#
#####
""",
    "u4_maze_single_eval": """
#####
#...#
#R#.#
###.#
#G#.#
#...#
#####
""",
    "u5_maze": """
########
#GGGGGG#
#R####G#
######G#
#G####G#
#GGGGGG#
########
""",
    "u5_maze_eval": """
########
#......#
#R####.#
######.#
#G####G#
#GGGGGG#
########
""",
    "u5_maze_single_eval": """
########
#......#
#R####.#
######.#
#G####.#
#......#
########
""",
    "u6_maze": """
#######
#GGGGG#
#R###G#
#####G#
#G###G#
#GGGGG#
#######
""",
    "u6_maze_eval": """
#######
#.....#
#R###.#
#####.#
#G###G#
#GGGGG#
#######
""",
    "u7_maze": """
######
#GGGG#
#R##G#
####G#
#G##G#
#GGGG#
######
""",
    "u7_maze_eval": """
######
#....#
#R##.#
####.#
#G##G#
#GGGG#
######
""",
    "big_maze": """
########
#RG##GG#
#GG#GGG#
##GGG###
#GG#GGG#
#G#GG#G#
#GGG#GG#
########
""",
    "big_maze_eval": """
########
#R.##GG#
#..#..G#
##...###
#..#...#
#.#G.#G#
#.GG#GG#
########
""",
    "big_maze_eval_10": """
########
#R.##GG#
#..#.GG#
##...###
#..#...#
#.#G.#G#
#.GG#GG#
########
""",
    "hardest_maze": """
############
#RGGG#GGGGG#
#G##G#G#G#G#
#GGGGGG#GGG#
#G####G###G#
#GG#G#GGGGG#
##G#G#G#G###
#GG#GGG#GGG#
############
""",
}
