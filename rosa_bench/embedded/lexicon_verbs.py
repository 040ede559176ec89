"""The verbs of the embedded language by argument structure; every verb stands in one class only.

``break:broke:broken`` gives past and participle, ``stop*`` doubles its last consonant, ``mend=repair`` are synonyms.
"""

from __future__ import annotations

VERBS: dict[str, str] = {
    # no object, animate subject
    "intransitive": """
        sleep:slept:slept laugh sneeze yawn cough smile arrive depart vanish snore giggle weep:wept:wept shiver tremble
        faint kneel:knelt:knelt wander linger fall:fell:fallen rise:rose:risen blush frown groan sigh travel* stumble
        rejoice grin* doze limp squirm stroll crawl sob* sulk gasp chuckle crouch tiptoe stagger snooze shudder scowl
        gossip""",
    # an object that must be there, a thing
    "transitive": """
        mend=repair buy:bought:bought=purchase construct=erect destroy=demolish find:found:found=locate inspect=examine
        fetch=retrieve decorate=adorn wreck=ruin grab*=seize lift=hoist get*:got:got=obtain
        bring:brought:brought=convey remove=extract use=utilise make:made:made=fabricate cover=encase carry=transport
        damage=harm devour discard=jettison unlock wrap* polish possess=own mention describe=depict sharpen
        manufacture acquire borrow replace handle bind:bound:bound catch:caught:caught photograph crush bury
        display=exhibit detect=perceive require tighten""",
    # an object that must be there, a person
    "personal": """
        greet=welcome help=assist praise=commend scold=rebuke hug*=embrace follow=pursue tease=mock rescue=save
        comfort=console injure=wound trick=deceive defend=protect attack=assault dismiss thank blame visit
        kiss punish pester chase accompany ignore applaud""",
    # an object that may be left out
    "optional": """
        eat:ate:eaten read:read:read write:wrote:written sing:sang:sung draw:drew:drawn study drive:drove:driven
        win*:won:won play bake dig*:dug:dug rehearse""",
    # two objects, both needed
    "ditransitive": """
        give:gave:given=grant hand=pass lend:lent:lent=loan send:sent:sent=post offer award sell:sold:sold
        owe serve feed:fed:fed""",
    # a that-clause and nothing else
    "clausal": """
        think:thought:thought=suppose say:said:said=state insist=contend boast complain=grumble argue agree reply=answer
        remark conclude assume=presume swear:swore:sworn""",
    # to + verb
    "infinitive": """
        refuse=decline decide=resolve manage fail aim=plan* tend yearn hope threaten pledge=vow""",
    # verb + ing
    "gerund": """
        enjoy=relish avoid finish=complete keep:kept:kept dislike resume quit:quit:quit postpone risk practise
        consider""",
    # object + to + verb
    "object_control": """
        persuade=convince force=compel* urge=exhort instruct=command allow=permit* encourage coax remind tempt enable
        invite""",
    # the object feels
    "frightening": """
        frighten=scare amuse=entertain annoy=irritate delight surprise=astonish please bore worry shock puzzle=perplex
        embarrass disgust""",
    # the subject feels
    "fearing": """
        dread=abhor* admire=esteem like love=adore hate=loathe envy trust detest despise pity
        prefer* regret* respect""",
}
